//! Control tokens, and how text is kept from becoming one.
//!
//! A chat template mixes its own text, where `<｜User｜>` is a control token, with message contents, where the same
//! characters are only text. Templates cut, trim and join contents, so marking where a content starts and ends does not
//! survive rendering. What does survive is a character inside it: before rendering, every character of a content that
//! could begin a control token is followed by a sentinel, a noncharacter that occurs in no content, no control token and
//! not in the template. A control token can then only be matched where its first character came from the template.
//! After the rendered text has been split at its control tokens, the sentinels are removed, and what is between control
//! tokens is encoded as plain text.

use tokenizers::AddedToken;

/// Unicode's noncharacters for internal use, U+FDD0 to U+FDEF.
const SENTINEL_FIRST: char = '\u{FDD0}';
const SENTINEL_COUNT: u32 = 32;

/// The longest a sentinel makes one byte of text: the byte and three of the sentinel.
pub const DISARMED_GROWTH_MAX: usize = 4;

/// Tags that an assistant's own words may carry: a template must find them to drop earlier reasoning.
pub const REASONING_TAGS: [&str; 2] = ["<think>", "</think>"];

/// Whether `token` steers the model rather than spelling text. DeepSeek's files mark `<｜User｜>`, `<think>` and others
/// as not special, so their form counts as well.
pub fn is_control(token: &AddedToken) -> bool {
    let content = token.content.as_str();
    token.special || (content.len() > 2 && content.starts_with('<') && content.ends_with('>'))
}

/// What has to be known of all control tokens of a tokenizer.
pub struct ControlTokens {
    first_chars: Vec<char>,
    sentinels_used: u32,
}

impl ControlTokens {
    /// Fails, with the token, if one is a single character: no sentinel fits inside it.
    pub fn new<'a>(tokens: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut result = Self { first_chars: Vec::new(), sentinels_used: 0 };
        for token in tokens {
            let mut chars = token.chars();
            let first = chars.next().ok_or("an empty control token")?;
            if chars.next().is_none() {
                return Err(format!("control token {token:?} is a single character"));
            }
            if !result.first_chars.contains(&first) {
                result.first_chars.push(first);
            }
            result.sentinels_used |= sentinels_in(token);
        }
        Ok(result)
    }

    /// A sentinel that is not among those `used` (see sentinels_in). None if they use up all 32.
    pub fn choose_sentinel(&self, used: u32) -> Option<char> {
        let index = (!(used | self.sentinels_used)).trailing_zeros();
        (index < SENTINEL_COUNT).then(|| char::from_u32(SENTINEL_FIRST as u32 + index)).flatten()
    }

    /// `text` with a sentinel after every character that begins a control token, except where one of `keep` stands.
    pub fn disarm(&self, text: &str, sentinel: char, keep: &[&str]) -> String {
        let mut result = String::with_capacity(text.len() + text.len() / 16);
        let mut copied = 0;
        let mut kept_end = 0;
        for (at, first) in text.char_indices().filter(|(_, c)| self.first_chars.contains(c)) {
            if at < kept_end {
                continue;
            }
            if let Some(kept) = keep.iter().find(|kept| text[at..].starts_with(**kept)) {
                kept_end = at + kept.len();
                continue;
            }
            let end = at + first.len_utf8();
            result.push_str(&text[copied..end]);
            result.push(sentinel);
            copied = end;
        }
        result.push_str(&text[copied..]);
        result
    }
}

/// A bit for each sentinel that occurs in `text`.
pub fn sentinels_in(text: &str) -> u32 {
    // All of them are EF B7 90 .. EF B7 AF in UTF-8.
    let mut used = 0;
    for window in text.as_bytes().windows(3) {
        if window[0] == 0xEF && window[1] == 0xB7 && (0x90..0xB0).contains(&window[2]) {
            used |= 1 << (window[2] - 0x90);
        }
    }
    used
}
