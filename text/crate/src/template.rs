//! Chat messages to a prompt: the model's Jinja template, rendered as Hugging Face transformers renders it.

use crate::byte_level::Segment;
use crate::config::TokenizerConfig;
use crate::control::{sentinels_in, DISARMED_GROWTH_MAX, REASONING_TAGS};
use crate::conversation::{Armour, Conversation, Message, Tool, ToolCall};
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

/// How R1's format marks the arguments of a call; V3.1's does not.
const FENCE: &str = "```json";

pub struct Request<'a> {
    pub messages: Vec<Message<'a>>,
    pub tools: Vec<Tool<'a>>,
    pub add_generation_prompt: bool,
    pub now_unix_seconds: i64,
}

pub struct Prompt {
    pub text: String,
    pub encoding: Encoding,
}

pub enum Encoding {
    /// Parts of the text that are still to be encoded, each for itself.
    Segments(Vec<Segment>),
    TokenIds(Vec<u32>),
}

pub struct ChatTemplate {
    tokenizer: Arc<Tokenizer>,
    environment: Environment<'static>,
    source_sentinels: u32,
    fences_arguments: bool,
    /// The template joins arguments of calls to text, and so wants them as text.
    arguments_as_text: bool,
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
        let source_sentinels = sentinels_in(&source);
        let fences_arguments = source.contains(FENCE);
        if let Err(cause) = environment.add_template_owned(TEMPLATE_NAME, source) {
            return invalid_model(format!("chat template: {}", describe(&cause)));
        }
        let mut result = Self {
            tokenizer,
            environment,
            source_sentinels,
            fences_arguments,
            arguments_as_text: false,
        };
        result.arguments_as_text = result.wants_arguments_as_text();
        Ok(result)
    }

    /// Transformers hands arguments on as they come; templates are written for values, as its documentation asks for,
    /// except those that fail with them: DeepSeek's own until V3.1.
    fn wants_arguments_as_text(&self) -> bool {
        let renders = |arguments_as_text| {
            let request = sample_request();
            let conversation = Conversation::parse(&request.messages, &request.tools);
            let rendered =
                conversation.and_then(|c| self.render_armed(&c, &request, arguments_as_text));
            rendered.is_ok()
        };
        !renders(false) && renders(true)
    }

    pub fn fences_arguments(&self) -> bool {
        self.fences_arguments
    }

    /// What is a control token in the messages stays text (see control.rs); only in an assistant's own words are the
    /// reasoning tags what they were.
    pub fn render(&self, request: &Request) -> Result<Prompt> {
        let conversation = Conversation::parse(&request.messages, &request.tools)?;
        let (armed, sentinel) =
            self.render_armed(&conversation, request, self.arguments_as_text)?;
        let check = |text: &str| {
            let checked = self.tokenizer.check_text(text);
            checked.map_err(|cause| cause.in_front("after the chat template, "))
        };
        if let Some(parts) = self.tokenizer.parts() {
            let (text, segments) = parts.segments_disarmed(&armed, sentinel);
            check(&text)?;
            return Ok(Prompt { text, encoding: Encoding::Segments(segments) });
        }
        let text: String = armed.chars().filter(|c| *c != sentinel).collect();
        check(&text)?;
        let token_ids = self.tokenizer.encode_disarmed(&armed, Some(sentinel))?;
        Ok(Prompt { text, encoding: Encoding::TokenIds(token_ids) })
    }

    /// Limits on the number of messages and on the bytes of messages and tools.
    pub fn check_sizes(
        &self,
        message_sizes: impl ExactSizeIterator<Item = usize>,
        tool_sizes: impl Iterator<Item = usize>,
    ) -> Result<()> {
        let limits = &self.tokenizer.limits;
        let count = message_sizes.len();
        if count == 0 {
            return invalid_input("no messages, at least one is needed");
        }
        if count > limits.messages_max {
            return invalid_input(format!("{count} messages, limit {}", limits.messages_max));
        }
        let messages = message_sizes.fold(0, usize::saturating_add);
        let tools = tool_sizes.fold(0, usize::saturating_add);
        let checked = check_size("text of all messages", messages, limits.text_bytes_max)
            .and_then(|()| check_size("text of all tools", tools, limits.text_bytes_max));
        checked.or_else(invalid_input)
    }

    /// The prompt with the sentinel that disarms what clients wrote.
    fn render_armed(
        &self,
        conversation: &Conversation,
        request: &Request,
        arguments_as_text: bool,
    ) -> Result<(String, char)> {
        let tokenizer = &*self.tokenizer;
        let mut used = self.source_sentinels;
        conversation.for_each_text(|text| used |= sentinels_in(text));
        let armour = Armour { tokenizer, sentinel: tokenizer.sentinel_outside(used)? };
        let mut context = BTreeMap::from([
            ("messages", conversation.messages(&armour, arguments_as_text)),
            ("add_generation_prompt", request.add_generation_prompt.into()),
            ("tools", conversation.tools(&armour)),
            ("documents", Value::from(())),
            ("model_reasons", tokenizer.token_id(REASONING_TAGS[0]).is_some().into()),
            (NOW_VARIABLE, request.now_unix_seconds.into()),
        ]);
        for (name, token) in [("bos_token", &tokenizer.bos), ("eos_token", &tokenizer.eos)] {
            if let Some(token) = token {
                context.insert(name, token.text.as_str().into());
            }
        }
        Ok((self.render_template(Value::from(context))?, armour.sentinel))
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

/// A question, a call, and its result, as any template for tools takes them.
fn sample_request() -> Request<'static> {
    let plain = |role, content| Message { role, content, tool_calls: Vec::new(), tool_call_id: "" };
    let call = ToolCall { id: "call00000", name: "add", arguments: "{\"a\": 1}" };
    Request {
        messages: vec![
            plain("user", "1 + 1?"),
            Message { tool_calls: vec![call], ..plain("assistant", "") },
            Message { tool_call_id: "call00000", ..plain("tool", "2") },
        ],
        tools: vec![Tool { name: "add", description: "Adds.", parameters: "" }],
        add_generation_prompt: true,
        now_unix_seconds: 0,
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
