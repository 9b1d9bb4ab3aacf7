//! What tokenizer.json says that `tokenizers` keeps to itself.

use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

#[derive(Deserialize)]
pub struct TokenizerFile<'a> {
    #[serde(default)]
    pub added_tokens: Vec<AddedEntry>,
    #[serde(default)]
    pub normalizer: Value,
    #[serde(default)]
    pub pre_tokenizer: Value,
    #[serde(borrow)]
    pub model: ModelPart<'a>,
}

#[derive(Deserialize)]
pub struct AddedEntry {
    pub id: u32,
    pub content: String,
}

#[derive(Deserialize)]
pub struct ModelPart<'a> {
    /// Of BPE.
    #[serde(borrow, default)]
    pub merges: Vec<Pair<'a>>,
}

/// Old files write "a b", new ones ["a", "b"].
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Pair<'a> {
    Joined(#[serde(borrow)] Cow<'a, str>),
    Apart(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>),
}

impl Pair<'_> {
    pub fn tokens(&self) -> Option<(&str, &str)> {
        match self {
            Pair::Joined(text) => text.split_once(' '),
            Pair::Apart(left, right) => Some((left, right)),
        }
    }
}
