//! Structured output: a vocabulary as a tree of bytes, grammars compiled for it, and matchers that say which tokens may
//! come next. The parser is llguidance; this module keeps it within bounds.

use crate::error::{internal, invalid_input, invalid_model, Result};
use crate::grammar_source::{parse_schema, parse_text, SourceLimits};
use crate::vocabulary::{CONTROL, EXISTS};
use llguidance::api::{GrammarInit, ParserLimits, StopReason, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{Logger, Matcher as Inner, ParserFactory};
use std::sync::Arc;

/// Compiling recurses with the depth of what it compiles. Reserved, not used, for all but hostile sources; how deep
/// those get is measured in tests/text/grammar.
const COMPILE_STACK_BYTES: usize = 256 << 20;

/// Of one message about a grammar: enough for a keyword and what is wrong with it, too little for a schema.
const MESSAGE_CHARS_MAX: usize = 200;

/// The numbers are those of `enum baleen_grammar_kind` in baleen_grammar.h.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    JsonSchema,
    Regex,
    Lark,
}

/// As `baleen_grammar_limits`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Limits {
    pub source_bytes_max: usize,
    pub schema_depth_max: u32,
    pub symbols_max: u32,
    pub compile_fuel_max: u64,
    pub mask_fuel_max: u64,
    pub mask_items_max: u32,
    pub lexer_states_max: u32,
}

pub struct Tokens<'a> {
    pub bytes: &'a [u8],
    pub offsets: &'a [u32],
    pub flags: &'a [u8],
}

struct Environment(TokTrie);

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(text)
    }

    /// So nothing is forced: every way to spell what the grammar wants is left to the model.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

pub struct Vocabulary {
    factory: ParserFactory,
    /// Ids that a token has.
    present: SimpleVob,
    size: u32,
}

impl Vocabulary {
    /// `size`: logits of the model, 0 for as many as there are ids.
    pub fn new(tokens: &Tokens, size: u32, eos_ids: &[TokenId]) -> Result<Self> {
        let ids = tokens.flags.len();
        let size = if size == 0 { ids as u32 } else { size };
        if ids > size as usize {
            let what = format!("tokenizer.json has ids up to {}, the model {size} logits", ids - 1);
            return invalid_model(what);
        }
        if eos_ids.is_empty() {
            return invalid_model("the model has no end-of-sequence token");
        }
        let mut words = vec![Vec::new(); size as usize];
        let mut present = SimpleVob::alloc(size as usize);
        for (id, word) in words.iter_mut().enumerate().take(ids) {
            if tokens.flags[id] & EXISTS == 0 {
                continue;
            }
            present.allow_token(id as TokenId);
            if tokens.flags[id] & CONTROL != 0 {
                word.push(TokTrie::SPECIAL_TOKEN_MARKER);
            }
            let (begin, end) = (tokens.offsets[id] as usize, tokens.offsets[id + 1] as usize);
            word.extend_from_slice(&tokens.bytes[begin..end]);
        }
        if let Some(id) = eos_ids.iter().find(|&&id| id >= size || !present.is_allowed(id)) {
            return invalid_model(format!("end-of-sequence token {id} is not in tokenizer.json"));
        }
        let trie =
            TokTrie::from(&TokRxInfo::new(size, eos_ids[0]), &words).with_eos_tokens(eos_ids);
        let environment: TokEnv = Arc::new(Environment(trie));
        let slices = SlicedBiasComputer::general_slices();
        let mut factory =
            ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
                .map_err(|cause| internal("grammar vocabulary", cause))?;
        factory.quiet();
        Ok(Self { factory, present, size })
    }

    pub fn size(&self) -> u32 {
        self.size
    }
}

/// Before its first token; never changes.
pub struct Grammar {
    fresh: Inner,
    present: SimpleVob,
}

impl Grammar {
    pub fn compile(
        vocabulary: &Vocabulary,
        kind: Kind,
        source: &[u8],
        limits: &Limits,
    ) -> Result<Self> {
        let bounds = SourceLimits {
            bytes_max: limits.source_bytes_max,
            depth_max: limits.schema_depth_max as usize,
        };
        let (name, grammar) = match kind {
            Kind::JsonSchema => {
                let schema = parse_schema(source, bounds)?;
                ("JSON schema", TopLevelGrammar::from_json_schema(schema))
            }
            Kind::Regex => {
                let regex = parse_text("regex", source, bounds)?;
                ("regex", TopLevelGrammar::from_regex(regex))
            }
            Kind::Lark => {
                let lark = parse_text("grammar", source, bounds)?;
                ("grammar", TopLevelGrammar::from_lark(lark.to_string()))
            }
        };
        let compile = || {
            let parser = vocabulary.factory.create_parser_from_init_ext(
                GrammarInit::Serialized(grammar),
                Logger::new(0, 0),
                InferenceCapabilities::default(),
                parser_limits(limits),
            );
            Inner::new(parser)
        };
        let fresh = std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES);
            match builder.spawn_scoped(scope, compile) {
                Ok(thread) => Ok(thread.join()),
                Err(cause) => Err(internal("thread to compile a grammar", cause)),
            }
        })?;
        match fresh {
            Ok(fresh) => match fresh.get_error() {
                None => Ok(Self { fresh, present: vocabulary.present.clone() }),
                Some(message) => invalid_input(format!("{name}: {}", shorten(&message))),
            },
            Err(_) => invalid_input(format!("{name}: not supported")),
        }
    }
}

fn parser_limits(limits: &Limits) -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: limits.compile_fuel_max,
        step_lexer_fuel: limits.mask_fuel_max,
        step_max_items: limits.mask_items_max as usize,
        max_lexer_states: limits.lexer_states_max as usize,
        max_grammar_size: limits.symbols_max as usize,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// The first line of a message of llguidance, without more of the source than fits.
fn shorten(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.chars().count() <= MESSAGE_CHARS_MAX {
        return line.to_string();
    }
    line.chars().take(MESSAGE_CHARS_MAX).chain("...".chars()).collect()
}

/// One reply.
pub struct Matcher {
    inner: Inner,
    present: SimpleVob,
}

impl Matcher {
    pub fn new(grammar: &Grammar) -> Self {
        // A lexer of its own: what one reply makes of it counts against no other.
        Self { inner: grammar.fresh.deep_clone(), present: grammar.present.clone() }
    }

    pub fn mask(&mut self, out: &mut [u32]) -> Result<()> {
        let mut mask = match self.inner.compute_mask_or_eos() {
            Ok(mask) => mask,
            // Only found when the mask was wanted: nothing follows.
            Err(_) if self.inner.stop_reason() == StopReason::NoExtensionBias => {
                return invalid_input("no token of the vocabulary continues the grammar");
            }
            Err(cause) => {
                return invalid_input(format!("grammar: {}", shorten(&cause.to_string())))
            }
        };
        mask.and(&self.present);
        if mask.is_zero() {
            return invalid_input("no token of the vocabulary continues the grammar");
        }
        let words = mask.as_slice();
        out.copy_from_slice(&words[..out.len()]);
        Ok(())
    }

    pub fn consume(&mut self, token: TokenId) -> Result<()> {
        let outcome = if self.inner.is_stopped() && !self.inner.is_error() {
            self.inner.tok_env().map(|env| env.tok_trie().eos_tokens().contains(&token))
        } else {
            self.inner.try_consume_tokens(&[token]).map(|taken| taken == 1)
        };
        match outcome {
            Ok(true) => Ok(()),
            Ok(false) => invalid_input(format!("token {token} does not continue the grammar")),
            Err(cause) => invalid_input(format!("grammar: {}", shorten(&cause.to_string()))),
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.inner.is_stopped()
    }
}
