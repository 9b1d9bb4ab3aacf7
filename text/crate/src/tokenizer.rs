//! Text to token ids, exactly as Hugging Face `tokenizers` does it, with control tokens recognised or not.

use crate::byte_level::file::{AddedEntry, TokenizerFile};
use crate::byte_level::ByteLevel;
use crate::config::TokenizerConfig;
use crate::control::{is_control, sentinels_in, ControlTokens};
use crate::error::{check_size, internal, invalid_input, invalid_model, Result};
use crate::vocabulary::{self, Vocabulary};
use tokenizers::{
    AddedToken, Model, ModelWrapper, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Tokenizer as HuggingFaceTokenizer,
};

/// A longer run of white space makes `fancy-regex` give up at its limit of 1,000,000 steps, and `tokenizers` then
/// splits the text elsewhere without a word. Two patterns of DeepSeek's take one step per character of the run.
const WHITESPACE_RUN_CHARS_MAX: usize = 100_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Limits {
    pub tokenizer_json_bytes_max: usize,
    pub config_json_bytes_max: usize,
    pub text_bytes_max: usize,
    pub messages_max: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ControlText {
    /// `<think>` is seven characters.
    AsText,
    /// `<think>` is one token.
    AsTokens,
}

pub struct Tokenizer {
    inner: HuggingFaceTokenizer,
    /// Encodes in the place of `inner`, if the tokenizer is of the kind that it knows.
    byte_level: Option<ByteLevel>,
    pub limits: Limits,
    pub vocabulary: Vocabulary,
    pub control: ControlTokens,
    /// What the model writes for text that it can not spell, if it does not spell bytes.
    unknown: Option<u32>,
    pub bos: Option<Named>,
    pub eos: Option<Named>,
    /// Prompts that are not made by a chat template start with `bos`.
    pub adds_bos: bool,
}

/// A token known by its text, such as bos_token.
pub struct Named {
    pub text: String,
    pub id: u32,
}

impl Tokenizer {
    pub fn load(json: &[u8], config: &TokenizerConfig, limits: Limits) -> Result<Self> {
        if let Err(message) =
            check_size("tokenizer.json", json.len(), limits.tokenizer_json_bytes_max)
        {
            return invalid_model(message);
        }
        let json = match std::str::from_utf8(json) {
            Ok(json) => json,
            Err(cause) => return invalid_model(format!("tokenizer.json: {cause}")),
        };
        // Not from_bytes: that one is generic, and would compile all of deserialisation a second time.
        let mut inner: HuggingFaceTokenizer = match json.parse() {
            Ok(inner) => inner,
            Err(cause) => return invalid_model(format!("tokenizer.json: {cause}")),
        };
        let file: TokenizerFile =
            serde_json::from_str(json).map_err(|cause| internal("tokenizer.json", cause))?;
        check_added_token_ids(&file.added_tokens, &inner)?;
        let unknown = check_model(inner.get_model())?.and_then(|token| inner.token_to_id(&token));
        match_control_tokens_first(&mut inner)?;
        let vocabulary = vocabulary::build(&inner)?;
        let added = inner.get_added_tokens_decoder();
        let control = ControlTokens::new(
            added.values().filter(|token| is_control(token)).map(|token| token.content.as_str()),
        );
        let control = match control {
            Ok(control) => control,
            Err(cause) => return invalid_model(format!("tokenizer.json: {cause}")),
        };
        let bos = find_named(&inner, "bos_token", config.bos_token.as_deref())?;
        let eos = find_named(&inner, "eos_token", config.eos_token.as_deref())?;
        let adds_bos = match config.add_bos_token {
            Some(adds_bos) => adds_bos,
            None => post_processor_adds(&inner, bos.as_ref()),
        };
        if adds_bos && bos.is_none() {
            return invalid_model("tokenizer_config.json: add_bos_token is set, but no bos_token");
        }
        let byte_level = ByteLevel::of(&file, &inner, &vocabulary);
        Ok(Self { inner, byte_level, limits, vocabulary, control, unknown, bos, eos, adds_bos })
    }

    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Ids of `text` alone: nothing is added in front or behind.
    pub fn encode(&self, text: &str, control_text: ControlText) -> Result<Vec<u32>> {
        self.check_text(text)?;
        if let Some(byte_level) = &self.byte_level {
            return Ok(match control_text {
                ControlText::AsText => byte_level.encode(text),
                ControlText::AsTokens => {
                    byte_level.encode_segments(text, &byte_level.segments(text))
                }
            });
        }
        match control_text {
            ControlText::AsTokens => self.encode_disarmed(text, None),
            ControlText::AsText => {
                let sentinel = self.sentinel_outside(sentinels_in(text))?;
                self.encode_disarmed(&self.control.disarm(text, sentinel, &[]), Some(sentinel))
            }
        }
    }

    /// None if the tokenizer is not of a kind whose texts can be encoded part by part.
    pub fn parts(&self) -> Option<&ByteLevel> {
        self.byte_level.as_ref()
    }

    pub fn require_parts(&self) -> Result<&ByteLevel> {
        self.parts().ok_or_else(|| internal("tokenizer", "its texts have no segments"))
    }

    /// A sentinel that is not among those `used`.
    pub fn sentinel_outside(&self, used: u32) -> Result<char> {
        match self.control.choose_sentinel(used) {
            Some(sentinel) => Ok(sentinel),
            None => invalid_input("text has all 32 noncharacters U+FDD0 to U+FDEF, limit 31"),
        }
    }

    /// Encodes text in which `sentinel` keeps control tokens from being recognised, without the sentinels.
    pub fn encode_disarmed(&self, text: &str, sentinel: Option<char>) -> Result<Vec<u32>> {
        let failed = |cause| internal("tokenizer", cause);
        let mut pieces: PreTokenizedString = self
            .inner
            .get_added_vocabulary()
            .extract_and_normalize(self.inner.get_normalizer(), text);
        let controls_found = self.count_controls(&pieces);
        if let Some(sentinel) = sentinel {
            pieces
                .normalize(|piece| {
                    piece.filter(|c| c != sentinel);
                    Ok(())
                })
                .map_err(failed)?;
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        pieces.tokenize(|piece| self.inner.get_model().tokenize(piece.get())).map_err(failed)?;
        if sentinel.is_some() && self.count_controls(&pieces) != controls_found {
            return invalid_input(
                "text spells a control token that the vocabulary cannot tell apart",
            );
        }
        Ok(token_ids(&pieces).collect())
    }

    pub fn check_text(&self, text: &str) -> Result<()> {
        if let Err(message) = check_size("text", text.len(), self.limits.text_bytes_max) {
            return invalid_input(message);
        }
        // No shorter text has such a run.
        let looked_at = if text.len() > WHITESPACE_RUN_CHARS_MAX { text } else { "" };
        let run = longest_whitespace_run(looked_at);
        if run > WHITESPACE_RUN_CHARS_MAX {
            return invalid_input(format!(
                "text has {run} white space characters in a row, limit {WHITESPACE_RUN_CHARS_MAX}"
            ));
        }
        Ok(())
    }

    fn count_controls(&self, pieces: &PreTokenizedString) -> usize {
        let counts = |id: &u32| self.vocabulary.is_control(*id) && Some(*id) != self.unknown;
        token_ids(pieces).filter(counts).count()
    }
}

fn token_ids(pieces: &PreTokenizedString) -> impl Iterator<Item = u32> + '_ {
    pieces
        .get_splits(OffsetReferential::Original, OffsetType::None)
        .into_iter()
        .flat_map(|(_, _, tokens)| tokens.iter().flatten().map(|token| token.id))
}

fn longest_whitespace_run(text: &str) -> usize {
    let (mut longest, mut current) = (0, 0);
    for c in text.chars() {
        current = if c.is_whitespace() { current + 1 } else { 0 };
        longest = longest.max(current);
    }
    longest
}

/// The text of the unknown token, if there is one. DeepSeek's tokenizers are BPE; the other kinds of `tokenizers` are
/// not needed, and one less thing to trust.
fn check_model(model: &ModelWrapper) -> Result<Option<String>> {
    let ModelWrapper::BPE(model) = model else {
        return invalid_model("tokenizer.json: model.type is not BPE");
    };
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return invalid_model("tokenizer.json: model.dropout makes tokens random, it must be null");
    }
    Ok(model.unk_token.clone())
}

/// `tokenizers` gives added tokens the next free ids, whatever ids the file says. Other ids than the file's would feed
/// the model other tokens than it was trained with.
fn check_added_token_ids(entries: &[AddedEntry], tokenizer: &HuggingFaceTokenizer) -> Result<()> {
    for AddedEntry { id, content } in entries {
        if tokenizer.token_to_id(content) != Some(*id) {
            return invalid_model(format!(
                "tokenizer.json: added token {content:?} has id {id}, which is taken or leaves a gap"
            ));
        }
    }
    Ok(())
}

/// Control tokens are recognised in the text as it is given, before it is normalised: otherwise a normaliser could make
/// one out of characters that were not disarmed, for example the full-width `＜`.
fn match_control_tokens_first(tokenizer: &mut HuggingFaceTokenizer) -> Result<()> {
    let changed: Vec<AddedToken> = tokenizer
        .get_added_tokens_decoder()
        .into_values()
        .filter(|token| is_control(token) && token.normalized)
        .map(|token| token.normalized(false))
        .collect();
    tokenizer.add_tokens(changed).map_err(|cause| internal("tokenizer.json", cause))?;
    Ok(())
}

fn find_named(
    tokenizer: &HuggingFaceTokenizer,
    field: &str,
    text: Option<&str>,
) -> Result<Option<Named>> {
    let Some(text) = text else { return Ok(None) };
    match tokenizer.token_to_id(text) {
        Some(id) => Ok(Some(Named { text: text.to_owned(), id })),
        None => invalid_model(format!(
            "tokenizer_config.json: {field} {text:?} is not in the vocabulary of tokenizer.json"
        )),
    }
}

fn post_processor_adds(tokenizer: &HuggingFaceTokenizer, bos: Option<&Named>) -> bool {
    let Some(bos) = bos else { return false };
    let empty = tokenizer.encode_fast("", true);
    empty.is_ok_and(|encoding| encoding.get_ids().first() == Some(&bos.id))
}
