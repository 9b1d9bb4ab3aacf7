//! Structured output: a vocabulary as a tree of bytes, grammars compiled for it, and matchers that say which tokens may
//! come next. The parser is llguidance; this module keeps it within bounds.

use crate::error::{internal, invalid_input, invalid_model, Result};
use crate::grammar_source::{parse_lark, parse_schema, parse_text, SourceLimits};
use crate::vocabulary::{CONTROL, EXISTS};
use llguidance::api::{GrammarInit, ParserLimits, StopReason, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{Logger, Matcher as Inner, ParserFactory};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Compiling recurses with the depth of what it compiles. Reserved, not used, for all but hostile sources; how deep
/// those get is measured in tests/text/grammar.
const COMPILE_STACK_BYTES: usize = 256 << 20;

/// Compilations that have outlived their time and can not be stopped; while there are so many, nothing is compiled. Each
/// ends by itself: what it does is limited by work as well.
const OVERDUE_MAX: usize = 4;
static OVERDUE: AtomicUsize = AtomicUsize::new(0);

/// Of one message about a grammar: enough for a keyword and what is wrong with it, too little for a schema.
const MESSAGE_CHARS_MAX: usize = 200;
const QUOTE_CHARS_MAX: usize = 40;

/// How llguidance begins the message of a panic that it has caught.
const PANIC: &str = "panic:";

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
    pub compile_ms_max: u32,
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
    factory: Arc<ParserFactory>,
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
        Ok(Self { factory: Arc::new(factory), present, size })
    }

    pub fn size(&self) -> u32 {
        self.size
    }
}

/// Replies that share a lexer, at most: it only grows.
const REPLIES_OF_LEXER_MAX: usize = 64;

/// A lexer that replies share while they run, so that each profits from what the others have made of it.
struct SharedLexer {
    start: Inner,
    replies: AtomicUsize,
}

/// Before its first token; does not change.
pub struct Grammar {
    fresh: Arc<Inner>,
    present: SimpleVob,
    shared: Mutex<Weak<SharedLexer>>,
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
                let lark = parse_lark(source, bounds)?;
                ("grammar", TopLevelGrammar::from_lark(lark.to_string()))
            }
        };
        let factory = Arc::clone(&vocabulary.factory);
        let parser_limits = parser_limits(limits);
        let compile = move || -> std::result::Result<Inner, String> {
            let parser = factory.create_parser_from_init_ext(
                GrammarInit::Serialized(grammar),
                Logger::new(0, 0),
                InferenceCapabilities::default(),
                parser_limits,
            );
            let fresh = Inner::new(parser);
            // Also of one that nothing matches.
            fresh
                .deep_clone()
                .compute_mask_or_eos()
                .map_err(|cause| shorten(&cause.to_string()))?;
            Ok(fresh)
        };
        match within(Duration::from_millis(limits.compile_ms_max.into()), compile)? {
            Ok(fresh) => Ok(Self {
                fresh: Arc::new(fresh),
                present: vocabulary.present.clone(),
                shared: Mutex::new(Weak::new()),
            }),
            Err(message) => invalid_input(format!("{name}: {message}")),
        }
    }

    /// The lexer for one more reply. It goes with the last of its replies.
    fn share_lexer(&self) -> Arc<SharedLexer> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lexer) = shared.upgrade() {
            if lexer.replies.fetch_add(1, Ordering::Relaxed) < REPLIES_OF_LEXER_MAX {
                return lexer;
            }
        }
        let start = self.fresh.deep_clone();
        let lexer = Arc::new(SharedLexer { start, replies: AtomicUsize::new(1) });
        *shared = Arc::downgrade(&lexer);
        lexer
    }
}

/// Runs `work` on a thread of its own, with a deep stack, and gives up on it after `time`.
fn within<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if OVERDUE.load(Ordering::SeqCst) >= OVERDUE_MAX {
        return invalid_input("grammar: others that take too long are still being compiled");
    }
    // Set by whoever is first to be through with the other.
    let over = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::sync_channel(1);
    let run = {
        let over = Arc::clone(&over);
        move || {
            // There is room for the one outcome; a panic leaves none.
            let _ = sender.send(catch_unwind(AssertUnwindSafe(work)).ok());
            if over.swap(true, Ordering::SeqCst) {
                OVERDUE.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };
    let builder = std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES);
    builder.spawn(run).map_err(|cause| internal("thread to compile a grammar", cause))?;
    let mut outcome = receiver.recv_timeout(time);
    if outcome.is_err() {
        OVERDUE.fetch_add(1, Ordering::SeqCst);
        if over.swap(true, Ordering::SeqCst) {
            // It was through just now.
            OVERDUE.fetch_sub(1, Ordering::SeqCst);
            outcome = receiver.try_recv().map_err(|_| mpsc::RecvTimeoutError::Timeout);
        }
    }
    match outcome {
        Ok(Some(outcome)) => Ok(outcome),
        Ok(None) => invalid_input("grammar: not supported"),
        Err(_) => {
            invalid_input(format!("grammar: compiling takes longer than {} ms", time.as_millis()))
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

/// The first line of a message of llguidance and, of a longer one, what it says at its end; no more of the source than
/// names what is at fault.
fn shorten(message: &str) -> String {
    if message.contains(&StopReason::NoExtensionBias.to_string()) {
        return "no token of the vocabulary can follow".to_string();
    }
    if message.starts_with(PANIC) {
        return "not supported".to_string();
    }
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = cut_quotes(lines.next().unwrap_or_default());
    if let Some(reason) = lines.rfind(|line| line.starts_with("error:")) {
        line.push(' ');
        line.push_str(reason);
    }
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// What stands in double quotes, at most QUOTE_CHARS_MAX of each.
fn cut_quotes(line: &str) -> String {
    let mut result = String::new();
    for (index, part) in line.split('"').enumerate() {
        if index > 0 {
            result.push('"');
        }
        match part.char_indices().nth(QUOTE_CHARS_MAX) {
            Some((end, _)) if index % 2 == 1 => {
                result.push_str(&part[..end]);
                result.push_str("...");
            }
            _ => result.push_str(part),
        }
    }
    result
}

/// One reply. What a shared lexer has become decides how long a mask takes, and never what it is: when it errs, because
/// others have filled it up, the reply goes on with one of its own.
pub struct Matcher {
    inner: Inner,
    present: SimpleVob,
    fresh: Arc<Inner>,
    /// None: the lexer is its own.
    shared: Option<Arc<SharedLexer>>,
    tokens: Vec<TokenId>,
}

impl Matcher {
    pub fn new(grammar: &Grammar) -> Self {
        let shared = grammar.share_lexer();
        Self {
            inner: shared.start.clone(),
            present: grammar.present.clone(),
            fresh: Arc::clone(&grammar.fresh),
            shared: Some(shared),
            tokens: Vec::new(),
        }
    }

    pub fn mask(&mut self, out: &mut [u32]) -> Result<()> {
        let mut mask = self.inner.compute_mask_or_eos();
        if mask.is_err() && self.part_from_others() {
            mask = self.inner.compute_mask_or_eos();
        }
        let mut mask = match mask {
            Ok(mask) => mask,
            Err(cause) => {
                return invalid_input(format!("grammar: {}", shorten(&cause.to_string())))
            }
        };
        mask.and(&self.present);
        if mask.is_zero() {
            return invalid_input("grammar: no token of the vocabulary can follow");
        }
        let words = mask.as_slice();
        out.copy_from_slice(&words[..out.len()]);
        Ok(())
    }

    pub fn consume(&mut self, token: TokenId) -> Result<()> {
        let mut taken = self.try_consume(token);
        if !matches!(taken, Ok(true)) && self.part_from_others() {
            taken = self.try_consume(token);
        }
        match taken {
            Ok(true) => {
                self.tokens.push(token);
                Ok(())
            }
            Ok(false) => invalid_input(format!("token {token} does not continue the grammar")),
            Err(message) => invalid_input(format!("grammar: {message}")),
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.inner.is_stopped()
    }

    fn try_consume(&mut self, token: TokenId) -> std::result::Result<bool, String> {
        let taken = if self.inner.is_stopped() && !self.inner.is_error() {
            self.inner.tok_env().map(|env| env.tok_trie().eos_tokens().contains(&token))
        } else {
            self.inner.try_consume_tokens(&[token]).map(|taken| taken == 1)
        };
        taken.map_err(|cause| shorten(&cause.to_string()))
    }

    /// From now on with a lexer of its own, at the same place. False: it has been so already.
    fn part_from_others(&mut self) -> bool {
        if self.shared.take().is_none() {
            return false;
        }
        self.inner = self.fresh.deep_clone();
        for token in std::mem::take(&mut self.tokens) {
            if matches!(self.try_consume(token), Ok(true)) {
                self.tokens.push(token);
            }
        }
        true
    }
}
