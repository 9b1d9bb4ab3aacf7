//! What a grammar's source must be before llguidance sees it: small, not deep, and about nothing but this reply.

use crate::error::{check_size, invalid_input, Result};
use serde_json::{json, Value};

/// JSON between tokens of a reply: at most so many blanks at a time. A model that has lost its way would write them for
/// ever; 128 indent 32 levels by four.
const WHITESPACE: &str = r"[\x20\x0A\x0D\x09]{1,128}";

/// The key of a schema that changes how llguidance reads it.
const OPTIONS_KEY: &str = "x-guidance";

#[derive(Clone, Copy, Debug)]
pub struct SourceLimits {
    pub bytes_max: usize,
    pub depth_max: usize,
}

/// A JSON Schema, as llguidance is to read it.
pub fn parse_schema(source: &[u8], limits: SourceLimits) -> Result<Value> {
    check_bytes(source, limits)?;
    check_depth(source, limits.depth_max)?;
    let schema: Value = match serde_json::from_slice(source) {
        Ok(schema) => schema,
        Err(cause) => return invalid_input(format!("JSON schema: {cause}")),
    };
    let mut schema = match schema {
        Value::Object(members) => members,
        Value::Bool(true) => serde_json::Map::new(),
        _ => return invalid_input("JSON schema: neither an object nor true"),
    };
    schema.insert(OPTIONS_KEY.to_string(), json!({ "whitespace_pattern": WHITESPACE }));
    Ok(Value::Object(schema))
}

/// The text of a regular expression or of a Lark grammar.
pub fn parse_text<'a>(kind: &str, source: &'a [u8], limits: SourceLimits) -> Result<&'a str> {
    check_bytes(source, limits)?;
    match std::str::from_utf8(source) {
        Ok(text) if text.trim().is_empty() => invalid_input(format!("{kind}: empty")),
        Ok(text) => Ok(text),
        Err(cause) => invalid_input(format!("{kind}: {cause}")),
    }
}

fn check_bytes(source: &[u8], limits: SourceLimits) -> Result<()> {
    match check_size("grammar", source.len(), limits.bytes_max) {
        Ok(()) => Ok(()),
        Err(message) => invalid_input(message),
    }
}

/// Objects and arrays inside each other, counted before a parser recurses into them.
fn check_depth(json: &[u8], depth_max: usize) -> Result<()> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > depth_max {
            return invalid_input(format!("JSON schema: deeper than {depth_max} levels"));
        }
    }
    Ok(())
}
