//! What a grammar's source must be before llguidance sees it: small, not deep, and about nothing but this reply.

use crate::error::{check_size, invalid_input, Result};
use serde_json::{json, Value};
use std::collections::HashSet;

/// JSON between tokens of a reply: at most so many blanks at a time. A model that has lost its way would write them for
/// ever; 128 indent 32 levels by four.
const WHITESPACE: &str = r"[\x20\x0A\x0D\x09]{1,128}";

/// The key of a schema that changes how llguidance reads it.
const OPTIONS_KEY: &str = "x-guidance";

/// Of one object: for each the parser keeps in mind that it may be left out. Beyond some 500 it gives up in mid-reply.
const OPTIONAL_PROPERTIES_MAX: usize = 400;

/// Of all different `multipleOf` of a schema, decimal points left out, multiplied: states of the automaton that divides.
const MULTIPLE_OF_MAX: f64 = 10_000.0;

/// Where Lark grammars hold JSON schemas.
const LARK_JSON: &str = "%json";

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
    check_schema(&Value::Object(schema.clone()))?;
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

/// A Lark grammar: as parse_text, and the schemas in it as parse_schema.
pub fn parse_lark(source: &[u8], limits: SourceLimits) -> Result<&str> {
    let text = parse_text("grammar", source, limits)?;
    for (position, _) in text.match_indices(LARK_JSON) {
        let json = &text.as_bytes()[position + LARK_JSON.len()..];
        // What does not parse is no schema: the word stands in a string or a comment, or llguidance refuses it.
        if let Some(Ok(schema)) = serde_json::Deserializer::from_slice(json).into_iter().next() {
            check_schema(&schema)?;
        }
    }
    Ok(text)
}

/// Refuses what llguidance takes too long for. Counts more rather than less: data that looks like a schema counts too.
fn check_schema(schema: &Value) -> Result<()> {
    let mut multiples = Vec::new();
    let mut todo = vec![schema];
    while let Some(value) = todo.pop() {
        match value {
            Value::Array(items) => todo.extend(items),
            Value::Object(members) => {
                check_properties(members)?;
                if let Some(multiple) = members.get("multipleOf").and_then(Value::as_f64) {
                    multiples.push(without_point(multiple));
                }
                todo.extend(members.values());
            }
            _ => {}
        }
    }
    multiples.sort_by(f64::total_cmp);
    multiples.dedup();
    if multiples.iter().product::<f64>() > MULTIPLE_OF_MAX {
        let what = format!("JSON schema: multipleOf has more than {MULTIPLE_OF_MAX} remainders");
        return invalid_input(what);
    }
    Ok(())
}

fn check_properties(members: &serde_json::Map<String, Value>) -> Result<()> {
    let Some(properties) = members.get("properties").and_then(Value::as_object) else {
        return Ok(());
    };
    let required = members.get("required").and_then(Value::as_array);
    let required = required.into_iter().flatten().filter_map(Value::as_str);
    let required: HashSet<&str> = required.filter(|name| properties.contains_key(*name)).collect();
    let optional = properties.len() - required.len();
    if optional > OPTIONAL_PROPERTIES_MAX {
        return invalid_input(format!(
            "JSON schema: an object has {optional} optional properties, limit {OPTIONAL_PROPERTIES_MAX}"
        ));
    }
    Ok(())
}

/// 0.25 becomes 25.
fn without_point(number: f64) -> f64 {
    let digits: String = number.abs().to_string().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(f64::INFINITY)
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
