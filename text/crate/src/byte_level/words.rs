//! DeepSeek's pre-tokenizer by hand: the words of a text, as its three patterns split it one after the other.
//!
//!   1  \p{N}{1,3}, in small vocabularies \p{N}
//!   2  [一-龥぀-ゟ゠-ヿ]+
//!   3  [!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|
//!      \s*[\r\n]+|\s+(?!\S)|\s+
//!
//! Each takes apart what the one before has left, and what lies between matches is a word as well. One look ahead, no
//! look behind, and time in proportion to the text: a regular expression engine needs none of it, and is the larger half
//! of what `tokenizers` takes.

use super::classes::{Classes, CJK, DIGIT, LETTER, LINE_END, MARK, PUNCTUATION, WHITE_SPACE};

/// The first pattern, as written in tokenizer.json, and how many digits it takes.
pub const DIGITS: [(&str, usize); 2] = [(r"\p{N}{1,3}", 3), (r"\p{N}", 1)];
pub const CJK_RUN: &str = "[一-龥぀-ゟ゠-ヿ]+";
pub const WORD: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+",
    "| ?[\\p{P}\\p{S}]+[\r\n]*",
    r"|\s*[",
    "\r\n",
    r"]+|\s+(?!\S)|\s+"
);

pub struct Splitter {
    classes: &'static Classes,
    digits_max: usize,
}

impl Splitter {
    pub fn new(digits_max: usize) -> Self {
        Self { classes: Classes::get(), digits_max }
    }

    /// Calls `word` with each word of `text`, in order; together they are the text.
    pub fn for_each_word<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str)) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            // What the first two patterns leave or take: each is taken apart for itself.
            let class = self.classes.of(first);
            let part = if class & DIGIT != 0 {
                self.run_of(rest, self.digits_max, |class| class & DIGIT != 0)
            } else if class & CJK != 0 {
                self.run_of(rest, usize::MAX, |class| class & CJK != 0)
            } else {
                self.run_of(rest, usize::MAX, |class| class & (DIGIT | CJK) == 0)
            };
            let (part, behind) = rest.split_at(part);
            self.split_part(part, &mut word);
            rest = behind;
        }
    }

    /// The first place from `from` on where a word ends whatever is before and after, so that pieces have the words of
    /// the whole; the end of the text if there is none.
    pub fn safe_end(&self, text: &str, from: usize) -> usize {
        let mut from = from.min(text.len());
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let Some(first) = text[from..].chars().next() else { return text.len() };
        let mut before = self.classes.of(first);
        let mut at = from + first.len_utf8();
        for c in text[at..].chars() {
            let class = self.classes.of(c);
            // No alternative has white space behind a letter or mark, none goes on behind the last line end of a run,
            // and both end there without a look at what follows.
            let behind_word = before & (LETTER | MARK) != 0 && class & WHITE_SPACE != 0;
            let behind_line = before & LINE_END != 0 && class & WHITE_SPACE == 0;
            if behind_word || behind_line {
                return at;
            }
            before = class;
            at += c.len_utf8();
        }
        text.len()
    }

    /// Bytes of the characters at the start of `text`, `count_max` at most, whose class fits.
    fn run_of(&self, text: &str, count_max: usize, fits: impl Fn(u8) -> bool) -> usize {
        let bytes = text.as_bytes();
        let mut at = 0;
        let mut count = 0;
        while at < bytes.len() && count < count_max {
            let (c, size) = char_at(text, at);
            if !fits(self.classes.of(c)) {
                break;
            }
            at += size;
            count += 1;
        }
        at
    }

    /// The third pattern.
    fn split_part<'t>(&self, part: &'t str, word: &mut impl FnMut(&'t str)) {
        let mut at = 0;
        let mut unmatched = 0; // where the text begins that no alternative takes
        while at < part.len() {
            let size = self.match_at(&part[at..]);
            if size == 0 {
                at += char_at(part, at).1;
                continue;
            }
            if unmatched < at {
                word(&part[unmatched..at]);
            }
            word(&part[at..at + size]);
            at += size;
            unmatched = at;
        }
        if unmatched < at {
            word(&part[unmatched..]);
        }
    }

    /// Bytes that the third pattern takes at the start of `text`, which is not empty; 0 if it does not match there.
    fn match_at(&self, text: &str) -> usize {
        let letters = |class: u8| class & (LETTER | MARK) != 0;
        let punctuation = |class: u8| class & PUNCTUATION != 0;
        let line_ends = |class: u8| class & LINE_END != 0;
        let (first, size) = char_at(text, 0);
        let class = self.classes.of(first);
        let behind = &text[size..];

        if first.is_ascii_punctuation() {
            let word = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
            if word > 0 {
                return size + word;
            }
        }
        if class & (LINE_END | LETTER | PUNCTUATION) == 0 {
            let word = self.run_of(behind, usize::MAX, letters);
            if word > 0 {
                return size + word;
            }
        }
        if letters(class) {
            return size + self.run_of(behind, usize::MAX, letters);
        }
        let from = if first == ' ' { behind } else { text };
        let marks = self.run_of(from, usize::MAX, punctuation);
        if marks > 0 {
            let line_ends = self.run_of(&from[marks..], usize::MAX, line_ends);
            return text.len() - from.len() + marks + line_ends;
        }
        if class & WHITE_SPACE == 0 {
            return 0;
        }
        self.white_space_at(text)
    }

    /// The last three alternatives: to the last line end of a run of white space; else all of it but for one character
    /// that the next word may want.
    fn white_space_at(&self, text: &str) -> usize {
        let (mut at, mut behind_line, mut last_size) = (0, 0, 0);
        while at < text.len() {
            let (c, size) = char_at(text, at);
            let class = self.classes.of(c);
            if class & WHITE_SPACE == 0 {
                break;
            }
            at += size;
            last_size = size;
            if class & LINE_END != 0 {
                behind_line = at;
            }
        }
        if behind_line > 0 {
            behind_line
        } else if at == text.len() || at == last_size {
            at
        } else {
            at - last_size
        }
    }
}

/// The character at `at`, which is inside of `text` and not inside of a character, and its size.
fn char_at(text: &str, at: usize) -> (char, usize) {
    let byte = text.as_bytes()[at];
    if byte < 0x80 {
        return (byte as char, 1);
    }
    match text[at..].chars().next() {
        Some(c) => (c, c.len_utf8()),
        None => unreachable!("`at` is inside of the text"),
    }
}
