//! Encoding of what DeepSeek's tokenizers have in common, without the general machinery of `tokenizers`, which keeps
//! offsets and strings of everything: byte-level BPE behind three known patterns. The ids are the same; a tokenizer.json
//! that differs in anything that matters is left to `tokenizers`.

mod classes;
mod controls;
pub mod file;
mod merges;
mod words;

use crate::vocabulary::{byte_level_alphabet, Vocabulary};
use controls::Controls;
pub use controls::Segment;
use file::TokenizerFile;
use merges::{Id, Merges, Scratch};
use serde_json::json;
use std::collections::HashMap;
use tokenizers::{ModelWrapper, Tokenizer};
use words::Splitter;

pub struct ByteLevel {
    splitter: Splitter,
    merges: Merges,
    controls: Controls,
}

impl ByteLevel {
    /// None if the tokenizer is of another kind.
    pub fn of(
        file: &TokenizerFile,
        tokenizer: &Tokenizer,
        vocabulary: &Vocabulary,
    ) -> Option<Self> {
        let digits_max = known_digits(file)?;
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        let plain = model.dropout.is_none()
            && model.unk_token.is_none()
            && model.continuing_subword_prefix.is_none()
            && model.end_of_word_suffix.is_none()
            && !model.byte_fallback
            && !model.ignore_merges
            && vocabulary.is_byte_level;
        let controls = Controls::of_all_added(tokenizer).filter(|_| plain)?;

        // Looked up one by one in the model, the entries would take longer than reading the file.
        let ids: HashMap<String, Id> = model.get_vocab();
        let mut pairs = Vec::with_capacity(file.model.merges.len());
        for pair in &file.model.merges {
            let (left, right) = pair.tokens()?;
            let merged = ids.get(format!("{left}{right}").as_str())?;
            pairs.push((*ids.get(left)?, *ids.get(right)?, *merged));
        }
        let mut byte_ids = [Id::MAX; 256];
        for (c, byte) in byte_level_alphabet() {
            if let Some(id) = ids.get(c.to_string().as_str()) {
                byte_ids[byte as usize] = *id;
            }
        }
        let spelled = byte_ids.iter().copied().chain(pairs.iter().map(|(_, _, id)| *id));
        if spelled.into_iter().any(|id| vocabulary.is_control(id)) {
            return None; // text could spell a control token
        }
        let mut merges = Merges::new(byte_ids, pairs.into_iter());
        merges.learn_whole_words(vocabulary.plain_tokens());
        Some(Self { splitter: Splitter::new(digits_max), merges, controls })
    }

    /// Ids of `text`, in which control tokens are characters like others.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut scratch = Scratch::default();
        let mut ids = Vec::with_capacity(text.len() / 4 + 1);
        self.splitter.for_each_word(text, |word| {
            self.merges.encode(word.as_bytes(), &mut scratch, &mut ids);
        });
        ids
    }

    /// Ids of a text of which `segments` are the parts.
    pub fn encode_segments(&self, text: &str, segments: &[Segment]) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4 + segments.len());
        for segment in segments {
            match u32::try_from(segment.control_id) {
                Ok(id) => ids.push(id),
                Err(_) => ids.extend(self.encode(&text[segment.begin..segment.end])),
            }
        }
        ids
    }

    /// The parts of `text`: control tokens, and what is between them.
    pub fn segments(&self, text: &str) -> Vec<Segment> {
        self.controls.segments(text, None).1
    }

    /// The same of a text in which `sentinel` keeps control tokens from being recognised, and that text without it.
    pub fn segments_disarmed(&self, text: &str, sentinel: char) -> (String, Vec<Segment>) {
        self.controls.segments(text, Some(sentinel))
    }

    /// Where `text` can be cut so that what is before and behind have the ids of the whole: the first such place from
    /// `bytes_min` on, or the end.
    pub fn piece_end(&self, text: &str, bytes_min: usize) -> usize {
        self.splitter.safe_end(text, bytes_min)
    }
}

/// How many digits the first pattern takes, if the normaliser and the pre-tokenizer are the known ones, byte for byte.
fn known_digits(file: &TokenizerFile) -> Option<usize> {
    let empty = json!({"type": "Sequence", "normalizers": []});
    if !file.normalizer.is_null() && file.normalizer != empty {
        return None;
    }
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let steps = file.pre_tokenizer.get("pretokenizers")?.as_array()?;
    let [digits, cjk, word, bytes] = steps.as_slice() else { return None };
    let known = file.pre_tokenizer["type"] == "Sequence"
        && *cjk == split(words::CJK_RUN)
        && *word == split(words::WORD)
        && bytes["type"] == "ByteLevel"
        && bytes["add_prefix_space"] == false
        && bytes["use_regex"] == false;
    let digits_max =
        |(pattern, count): &(&str, usize)| (*digits == split(pattern)).then_some(*count);
    words::DIGITS.iter().find_map(digits_max).filter(|_| known)
}
