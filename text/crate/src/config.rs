//! The few fields of tokenizer_config.json that matter here.

use crate::error::{invalid_model, Result};
use serde::Deserialize;

#[derive(Default)]
pub struct TokenizerConfig {
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub add_bos_token: Option<bool>,
    pub chat_template: Option<String>,
}

#[derive(Deserialize)]
struct RawConfig {
    bos_token: Option<RawToken>,
    eos_token: Option<RawToken>,
    add_bos_token: Option<bool>,
    chat_template: Option<RawTemplate>,
}

/// A token is written as a string, or as an AddedToken object.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawToken {
    Text(String),
    Object { content: String },
}

/// A template is written as a string, or as a list of named ones, of which "default" is for chat.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawTemplate {
    Text(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl From<RawToken> for String {
    fn from(token: RawToken) -> String {
        match token {
            RawToken::Text(content) | RawToken::Object { content } => content,
        }
    }
}

/// Empty `json` (no such file) gives the defaults.
pub fn parse(json: &[u8]) -> Result<TokenizerConfig> {
    if json.is_empty() {
        return Ok(TokenizerConfig::default());
    }
    let raw: RawConfig = match serde_json::from_slice(json) {
        Ok(raw) => raw,
        Err(cause) => return invalid_model(format!("tokenizer_config.json: {cause}")),
    };
    let chat_template = match raw.chat_template {
        None => None,
        Some(RawTemplate::Text(text)) => Some(text),
        Some(RawTemplate::Named(templates)) => {
            match templates.into_iter().find(|named| named.name == "default") {
                Some(named) => Some(named.template),
                None => {
                    return invalid_model(
                        "tokenizer_config.json: chat_template has no entry named \"default\"",
                    )
                }
            }
        }
    };
    Ok(TokenizerConfig {
        bos_token: raw.bos_token.map(String::from),
        eos_token: raw.eos_token.map(String::from),
        add_bos_token: raw.add_bos_token,
        chat_template,
    })
}
