//! The bytes that each token stands for, so that text can be built from token ids one at a time.
//!
//! Hugging Face decoders turn a list of tokens into text. Those of byte-level and of SentencePiece-style tokenizers are
//! a map from token to bytes, except that the latter drop one space at the very start. Others (WordPiece, CTC) look at
//! neighbours in ways that do not stream, and are refused.

use crate::control::is_control;
use crate::error::{internal, invalid_model, Result};
use serde_json::Value;
use std::collections::HashMap;
use tokenizers::{Model, ModelWrapper, Tokenizer};

/// Token ids are below this: eight times DeepSeek's vocabulary, and 4 MiB of offsets.
const TOKEN_ID_END_MAX: usize = 1 << 20;

/// The numbers are those of `enum baleen_text_token_flag` in baleen_text.h.
pub const EXISTS: u8 = 1;
pub const SPECIAL: u8 = 2;
pub const CONTROL: u8 = 4;

pub struct Vocabulary {
    /// The bytes of token `id` are `bytes[offsets[id]..offsets[id + 1]]`.
    pub bytes: Vec<u8>,
    pub offsets: Vec<u32>,
    pub flags: Vec<u8>,
    /// Text made from the first token on loses one leading space.
    pub strips_leading_space: bool,
    /// The bytes are those of the byte-level alphabet.
    pub is_byte_level: bool,
}

impl Vocabulary {
    pub fn is_control(&self, id: u32) -> bool {
        self.flags.get(id as usize).is_some_and(|flags| flags & CONTROL != 0)
    }

    /// Tokens that are no control tokens, with their bytes.
    pub fn plain_tokens(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let plain = self.flags.iter().enumerate().filter(|(_, flags)| **flags & CONTROL == 0);
        plain.map(|(id, _)| {
            let bytes = self.offsets[id] as usize..self.offsets[id + 1] as usize;
            (id as u32, &self.bytes[bytes])
        })
    }
}

pub fn build(tokenizer: &Tokenizer) -> Result<Vocabulary> {
    let decoder = ByteDecoder::of(tokenizer)?;
    let added = tokenizer.get_added_vocabulary();
    let vocab = tokenizer.get_vocab(false);
    let vocab_len = vocab.len();
    let mut tokens: HashMap<u32, (String, u8)> =
        vocab.into_iter().map(|(text, id)| (id, (text, EXISTS))).collect();
    if tokens.len() != vocab_len {
        return invalid_model("tokenizer.json: two tokens of the vocabulary have the same id");
    }
    for (&id, token) in added.get_added_tokens_decoder() {
        let mut flags = EXISTS;
        flags |= if token.special { SPECIAL } else { 0 };
        flags |= if is_control(token) { CONTROL } else { 0 };
        let text = added.simple_id_to_token(id).unwrap_or_default();
        tokens.insert(id, (text, flags));
    }
    let end = tokens.keys().max().map_or(0, |&id| id as usize + 1);
    if end > TOKEN_ID_END_MAX {
        return invalid_model(format!(
            "tokenizer.json: token id {} is above the limit {}",
            end - 1,
            TOKEN_ID_END_MAX - 1
        ));
    }
    let mut result = Vocabulary {
        bytes: Vec::new(),
        offsets: vec![0],
        flags: vec![0; end],
        strips_leading_space: decoder.strips_leading_space(),
        is_byte_level: matches!(decoder, ByteDecoder::ByteLevel(_)),
    };
    for id in 0..end {
        if let Some((text, flags)) = tokens.get(&(id as u32)) {
            decoder.append_bytes(text, &mut result.bytes);
            result.flags[id] = *flags;
        }
        result.offsets.push(result.bytes.len() as u32);
    }
    Ok(result)
}

enum ByteDecoder {
    /// Every character of a token stands for a byte.
    ByteLevel(HashMap<char, u8>),
    /// `space` stands for a space, `<0x41>` for a byte.
    Metaspace { space: char, byte_fallback: bool, strips_leading_space: bool },
}

impl ByteDecoder {
    fn of(tokenizer: &Tokenizer) -> Result<Self> {
        let json = match tokenizer.get_decoder() {
            Some(decoder) => {
                serde_json::to_value(decoder).map_err(|cause| internal("decoder", cause))?
            }
            None => return invalid_model("tokenizer.json has no decoder"),
        };
        match json["type"].as_str() {
            Some("ByteLevel") => {
                let byte_of_char = byte_level_alphabet();
                check_all_bytes_known(tokenizer, &byte_of_char)?;
                Ok(Self::ByteLevel(byte_of_char))
            }
            Some("Metaspace") => Ok(Self::Metaspace {
                space: single_char(&json["replacement"]).unwrap_or('\u{2581}'),
                byte_fallback: false,
                strips_leading_space: json["prepend_scheme"] != "never",
            }),
            Some("Sequence") => Self::of_sequence(&json["decoders"]),
            other => unsupported(other.unwrap_or("without type")),
        }
    }

    /// Replace(▁ by space), ByteFallback, Fuse, Strip(one space at the start), of which any may be missing.
    fn of_sequence(decoders: &Value) -> Result<Self> {
        let mut space = ' ';
        let (mut byte_fallback, mut strips_leading_space) = (false, false);
        for decoder in decoders.as_array().into_iter().flatten() {
            match decoder["type"].as_str() {
                Some("Replace") if decoder["content"] == " " => {
                    match single_char(&decoder["pattern"]["String"]) {
                        Some(pattern) => space = pattern,
                        None => return unsupported("Replace of anything but one character"),
                    }
                }
                Some("ByteFallback") => byte_fallback = true,
                Some("Fuse") => {}
                Some("Strip")
                    if decoder["content"] == " "
                        && decoder["start"] == 1
                        && decoder["stop"] == 0 =>
                {
                    strips_leading_space = true
                }
                other => return unsupported(other.unwrap_or("without type")),
            }
        }
        Ok(Self::Metaspace { space, byte_fallback, strips_leading_space })
    }

    fn strips_leading_space(&self) -> bool {
        matches!(self, Self::Metaspace { strips_leading_space: true, .. })
    }

    fn append_bytes(&self, token: &str, bytes: &mut Vec<u8>) {
        match self {
            Self::ByteLevel(byte_of_char) => {
                let start = bytes.len();
                for c in token.chars() {
                    match byte_of_char.get(&c) {
                        Some(byte) => bytes.push(*byte),
                        // An added token with other characters is written as it is.
                        None => {
                            bytes.truncate(start);
                            bytes.extend_from_slice(token.as_bytes());
                            return;
                        }
                    }
                }
            }
            Self::Metaspace { space, byte_fallback, .. } => {
                match fallback_byte(token).filter(|_| *byte_fallback) {
                    Some(byte) => bytes.push(byte),
                    None => bytes.extend_from_slice(token.replace(*space, " ").as_bytes()),
                }
            }
        }
    }
}

fn unsupported<T>(decoder: &str) -> Result<T> {
    invalid_model(format!(
        "tokenizer.json: decoder {decoder} is not supported (ByteLevel, Metaspace, and Sequence of Replace, \
         ByteFallback, Fuse, Strip are)"
    ))
}

fn single_char(value: &Value) -> Option<char> {
    let mut chars = value.as_str()?.chars();
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

/// 0x41 of "<0x41>".
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// GPT-2's alphabet: visible Latin-1 characters stand for themselves, the other bytes, in order, for U+0100 and on.
pub fn byte_level_alphabet() -> HashMap<char, u8> {
    let mut next_other = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => (byte as char, byte),
            _ => {
                next_other += 1;
                (char::from_u32(next_other - 1).unwrap_or('\u{100}'), byte)
            }
        })
        .collect()
}

/// BPE drops, without a word, what its vocabulary cannot spell. So it must be able to spell every byte of UTF-8.
fn check_all_bytes_known(tokenizer: &Tokenizer, byte_of_char: &HashMap<char, u8>) -> Result<()> {
    let model = match tokenizer.get_model() {
        ModelWrapper::BPE(model) if model.unk_token.is_none() => model,
        _ => return Ok(()),
    };
    let never_in_utf8 = |byte: u8| matches!(byte, 0xC0 | 0xC1 | 0xF5..=0xFF);
    let mut missing: Vec<u8> = byte_of_char
        .iter()
        .filter(|(c, byte)| !never_in_utf8(**byte) && model.token_to_id(&c.to_string()).is_none())
        .map(|(_, byte)| *byte)
        .collect();
    missing.sort_unstable();
    match missing.first() {
        None => Ok(()),
        Some(byte) => invalid_model(format!(
            "tokenizer.json: the vocabulary has no token for {} of the 243 bytes of UTF-8, for one {byte:#04x}",
            missing.len()
        )),
    }
}
