//! Chat messages to a prompt: the model's Jinja template, rendered as Hugging Face transformers renders it.

use crate::config::TokenizerConfig;
use crate::control::{DISARMED_GROWTH_MAX, REASONING_TAGS};
use crate::error::{check_size, invalid_input, invalid_model, not_found, Code, Result, TextError};
use crate::filters::{self, Refusal, NOW_VARIABLE};
use crate::tokenizer::Tokenizer;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use std::collections::BTreeMap;
use std::error::Error as _;
use std::io;
use std::sync::Arc;

const DEEPSEEK_R1: &str = include_str!("deepseek_r1.jinja");
const TEMPLATE_NAME: &str = "chat_template";

/// Instructions a rendering may take. DeepSeek's template takes less than 100 a message: ten times what the largest
/// conversation needs, and a few tens of milliseconds for a template that loops for ever.
const FUEL: u64 = 1_000_000;

pub struct Message<'a> {
    pub role: &'a str,
    pub content: &'a str,
}

pub struct Prompt {
    pub text: String,
    pub token_ids: Vec<u32>,
}

pub struct ChatTemplate {
    tokenizer: Arc<Tokenizer>,
    environment: Environment<'static>,
    source: String,
}

impl ChatTemplate {
    /// `file` (chat_template.jinja) comes before `config`, and that before the built-in template.
    pub fn load(
        tokenizer: Arc<Tokenizer>,
        config: TokenizerConfig,
        file: Option<&str>,
    ) -> Result<Self> {
        let source = match file.map(str::to_owned).or(config.chat_template) {
            Some(source) => source,
            None if tokenizer.token_id("<｜User｜>").is_some() && tokenizer.eos.is_some() => {
                DEEPSEEK_R1.to_owned()
            }
            None => {
                return not_found(
                    "no chat_template in tokenizer_config.json, no chat_template.jinja, and a vocabulary without \
                     <｜User｜>, so DeepSeek's own template does not fit",
                )
            }
        };
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|cause| crate::error::internal("syntax", cause))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        filters::install(&mut environment);
        if let Err(cause) = environment.add_template_owned(TEMPLATE_NAME, source.clone()) {
            return invalid_model(format!("chat template: {}", describe(&cause)));
        }
        Ok(Self { tokenizer, environment, source })
    }

    /// What is a control token in the messages stays text (see control.rs); only in an assistant's own words are the
    /// reasoning tags what they were.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now_unix_seconds: i64,
    ) -> Result<Prompt> {
        let texts = messages.iter().map(|message| message.content);
        let sentinel = self.tokenizer.sentinel_for(texts.chain([self.source.as_str()]))?;
        let context = self.context(messages, sentinel, add_generation_prompt, now_unix_seconds);
        let armed = self.render_template(context)?;
        let text: String = armed.chars().filter(|c| *c != sentinel).collect();
        let checked = self.tokenizer.check_text(&text);
        checked.map_err(|cause| cause.in_front("after the chat template, "))?;
        let token_ids = self.tokenizer.encode_disarmed(&armed, Some(sentinel))?;
        Ok(Prompt { text, token_ids })
    }

    /// Limits on the number of messages and on the bytes of their contents.
    pub fn check_sizes(&self, content_sizes: impl ExactSizeIterator<Item = usize>) -> Result<()> {
        let limits = &self.tokenizer.limits;
        let count = content_sizes.len();
        if count == 0 {
            return invalid_input("no messages, at least one is needed");
        }
        if count > limits.messages_max {
            return invalid_input(format!("{count} messages, limit {}", limits.messages_max));
        }
        let size = content_sizes.fold(0, usize::saturating_add);
        match check_size("text of all messages", size, limits.text_bytes_max) {
            Ok(()) => Ok(()),
            Err(message) => invalid_input(message),
        }
    }

    fn context(
        &self,
        messages: &[Message],
        sentinel: char,
        add_generation_prompt: bool,
        now_unix_seconds: i64,
    ) -> Value {
        let tokenizer = &self.tokenizer;
        let as_value = |message: &Message| {
            let keep: &[&str] = if message.role == "assistant" { &REASONING_TAGS } else { &[] };
            let content = tokenizer.control.disarm(message.content, sentinel, keep);
            Value::from_pairs([("role", Value::from(message.role)), ("content", content.into())])
        };
        let mut context = BTreeMap::from([
            ("messages", messages.iter().map(as_value).collect::<Vec<_>>().into()),
            ("add_generation_prompt", add_generation_prompt.into()),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("model_reasons", tokenizer.token_id(REASONING_TAGS[0]).is_some().into()),
            (NOW_VARIABLE, now_unix_seconds.into()),
        ]);
        for (name, token) in [("bos_token", &tokenizer.bos), ("eos_token", &tokenizer.eos)] {
            if let Some(token) = token {
                context.insert(name, token.text.as_str().into());
            }
        }
        Value::from(context)
    }

    fn render_template(&self, context: Value) -> Result<String> {
        let limit = self.tokenizer.limits.text_bytes_max.saturating_mul(DISARMED_GROWTH_MAX);
        let mut output = CappedOutput { bytes: Vec::new(), limit, exceeded: false };
        let rendered = self
            .environment
            .get_template(TEMPLATE_NAME)
            .and_then(|template| template.render_captured_to(context, &mut output).map(|_| ()));
        match rendered {
            Ok(()) => String::from_utf8(output.bytes)
                .map_err(|cause| crate::error::internal("chat template", cause)),
            Err(_) if output.exceeded => invalid_input(format!(
                "after the chat template, text is above the limit of {} bytes",
                self.tokenizer.limits.text_bytes_max
            )),
            Err(cause) => render_error(&cause),
        }
    }
}

fn render_error<T>(cause: &minijinja::Error) -> Result<T> {
    if let Some(refusal) = cause.source().and_then(|source| source.downcast_ref::<Refusal>()) {
        return invalid_input(format!("the chat template refuses the messages: {refusal}"));
    }
    if cause.kind() == ErrorKind::OutOfFuel {
        return Err(TextError {
            code: Code::InvalidModel,
            message: format!("chat template takes more than {FUEL} instructions"),
        });
    }
    invalid_model(format!("chat template: {}", describe(cause)))
}

fn describe(cause: &minijinja::Error) -> String {
    let detail = cause.detail().map_or(String::new(), |detail| format!(": {detail}"));
    let line = cause.line().map_or(String::new(), |line| format!(" (line {line})"));
    format!("{}{detail}{line}", cause.kind())
}

struct CappedOutput {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl io::Write for CappedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.exceeded = true;
            return Err(io::Error::other("limit"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
