//! What a template sees of a conversation: messages, tool calls and tools in the shape that Hugging Face transformers
//! gives them (OpenAI's), every text of a client disarmed (see control.rs).

use crate::control::REASONING_TAGS;
use crate::error::{invalid_input, Result};
use crate::tokenizer::Tokenizer;
use minijinja::value::Value;
use serde_json::Value as Json;

pub struct Message<'a> {
    pub role: &'a str,
    pub content: &'a str,
    pub tool_calls: Vec<ToolCall<'a>>,
    pub tool_call_id: &'a str,
}

pub struct ToolCall<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub arguments: &'a str,
}

pub struct Tool<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub parameters: &'a str,
}

/// Levels of a client's JSON: below what writing it out again goes to.
const JSON_DEPTH_MAX: usize = 48;

/// A conversation whose JSON has been read.
pub struct Conversation<'a> {
    messages: &'a [Message<'a>],
    tools: &'a [Tool<'a>],
    arguments: Vec<Vec<Json>>, // of each call of each message
    parameters: Vec<Json>,     // of each tool
}

impl<'a> Conversation<'a> {
    pub fn parse(messages: &'a [Message<'a>], tools: &'a [Tool<'a>]) -> Result<Self> {
        let mut arguments = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let mut of_message = Vec::with_capacity(message.tool_calls.len());
            for (call, ToolCall { arguments, .. }) in message.tool_calls.iter().enumerate() {
                let what = || format!("messages[{index}].tool_calls[{call}].arguments");
                of_message.push(parse_object(arguments, what)?);
            }
            arguments.push(of_message);
        }
        let mut parameters = Vec::with_capacity(tools.len());
        for (index, tool) in tools.iter().enumerate() {
            parameters
                .push(parse_object(tool.parameters, || format!("tools[{index}].parameters"))?);
        }
        Ok(Self { messages, tools, arguments, parameters })
    }

    /// Calls `visit` with every text of the client, as it is and as JSON spells it.
    pub fn for_each_text(&self, mut visit: impl FnMut(&str)) {
        for (message, arguments) in self.messages.iter().zip(&self.arguments) {
            visit(message.content);
            visit(message.tool_call_id);
            for (call, arguments) in message.tool_calls.iter().zip(arguments) {
                visit(call.id);
                visit(call.name);
                visit(call.arguments);
                for_each_string(arguments, &mut visit);
            }
        }
        for (tool, parameters) in self.tools.iter().zip(&self.parameters) {
            visit(tool.name);
            visit(tool.description);
            for_each_string(parameters, &mut visit);
        }
    }

    /// For the template. `arguments_as_text`: as the client wrote them, else as a value.
    pub fn messages(&self, armour: &Armour, arguments_as_text: bool) -> Value {
        let rows = self.messages.iter().zip(&self.arguments);
        let rows = rows.map(|(message, arguments)| {
            message_value(message, arguments, armour, arguments_as_text)
        });
        rows.collect::<Vec<_>>().into()
    }

    /// For the template: null without tools.
    pub fn tools(&self, armour: &Armour) -> Value {
        if self.tools.is_empty() {
            return Value::from(());
        }
        let rows = self.tools.iter().zip(&self.parameters);
        rows.map(|(tool, parameters)| tool_value(tool, parameters, armour))
            .collect::<Vec<_>>()
            .into()
    }
}

/// Keeps what clients write from becoming control tokens.
pub struct Armour<'a> {
    pub tokenizer: &'a Tokenizer,
    pub sentinel: char,
}

impl Armour<'_> {
    fn text(&self, text: &str) -> Value {
        self.text_keeping(text, &[])
    }

    fn text_keeping(&self, text: &str, keep: &[&str]) -> Value {
        self.tokenizer.control.disarm(text, self.sentinel, keep).into()
    }

    fn json(&self, json: &Json) -> Value {
        match json {
            Json::String(text) => self.text(text),
            Json::Array(items) => {
                items.iter().map(|item| self.json(item)).collect::<Vec<_>>().into()
            }
            Json::Object(members) => Value::from_pairs(members.iter().map(|(name, value)| {
                (self.tokenizer.control.disarm(name, self.sentinel, &[]), self.json(value))
            })),
            Json::Null => Value::from(()),
            Json::Bool(value) => (*value).into(),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => value.into(),
                (None, Some(value)) => value.into(),
                (None, None) => number.as_f64().into(),
            },
        }
    }
}

fn message_value(
    message: &Message,
    arguments: &[Json],
    armour: &Armour,
    arguments_as_text: bool,
) -> Value {
    let is_assistant = message.role == "assistant";
    let keep: &[&str] = if is_assistant { &REASONING_TAGS } else { &[] };
    // A turn that only calls has no content: OpenAI's clients send null, which some templates look for.
    let content = match message.content.is_empty() && !message.tool_calls.is_empty() {
        true => Value::from(()),
        false => armour.text_keeping(message.content, keep),
    };
    let mut members = vec![("role", Value::from(message.role)), ("content", content)];
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().zip(arguments);
        let calls = calls.map(|(call, arguments)| {
            let arguments = match arguments_as_text {
                true if call.arguments.is_empty() => Value::from("{}"),
                true => armour.text(call.arguments),
                false => armour.json(arguments),
            };
            let function =
                Value::from_pairs([("name", armour.text(call.name)), ("arguments", arguments)]);
            Value::from_pairs([
                ("id", armour.text(call.id)),
                ("type", Value::from("function")),
                ("function", function),
            ])
        });
        members.push(("tool_calls", calls.collect::<Vec<_>>().into()));
    }
    if !message.tool_call_id.is_empty() {
        members.push(("tool_call_id", armour.text(message.tool_call_id)));
    }
    Value::from_pairs(members)
}

fn tool_value(tool: &Tool, parameters: &Json, armour: &Armour) -> Value {
    let mut function = vec![("name", armour.text(tool.name))];
    if !tool.description.is_empty() {
        function.push(("description", armour.text(tool.description)));
    }
    function.push(("parameters", armour.json(parameters)));
    Value::from_pairs([
        ("type", Value::from("function")),
        ("function", Value::from_pairs(function)),
    ])
}

fn parse_object(text: &str, what: impl Fn() -> String) -> Result<Json> {
    if text.is_empty() {
        return Ok(Json::Object(Default::default()));
    }
    match serde_json::from_str::<Json>(text) {
        Ok(json) if !json.is_object() => invalid_input(format!("{} is no JSON object", what())),
        Ok(json) if depth(&json) > JSON_DEPTH_MAX => {
            invalid_input(format!("{} is nested deeper than {JSON_DEPTH_MAX} levels", what()))
        }
        Ok(json) => Ok(json),
        Err(cause) => invalid_input(format!("{} is no JSON: {cause}", what())),
    }
}

/// serde_json stops at 128.
fn depth(json: &Json) -> usize {
    match json {
        Json::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Json::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn for_each_string(json: &Json, visit: &mut impl FnMut(&str)) {
    match json {
        Json::String(text) => visit(text),
        Json::Array(items) => items.iter().for_each(|item| for_each_string(item, visit)),
        Json::Object(members) => members.iter().for_each(|(name, value)| {
            visit(name);
            for_each_string(value, visit);
        }),
        _ => {}
    }
}
