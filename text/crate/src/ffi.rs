//! The C ABI of baleen_text.h. Pointers are as that header promises; every function catches panics.

use crate::byte_level::Segment;
use crate::config;
use crate::conversation::{Message, Tool, ToolCall};
use crate::error::{check_size, invalid_input, invalid_model, Code, Result, TextError};
use crate::template::{ChatTemplate, Encoding, Request};
use crate::tokenizer::{ControlText, Limits, Named, Tokenizer};
use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;
use std::sync::Arc;

const OK: i32 = 0;
const MESSAGE_BYTES: usize = 512;

#[repr(C)]
pub struct ErrorOut {
    code: i32,
    message_size: u32,
    message: [u8; MESSAGE_BYTES],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Span {
    data: *const u8,
    size: usize,
}

impl Span {
    /// # Safety
    /// `data` points to `size` bytes that outlive the use of the result, or `size` is 0.
    pub(crate) unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.size == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data, self.size)
    }

    pub(crate) unsafe fn text<'a>(self) -> Result<&'a str> {
        Ok(std::str::from_utf8(self.bytes())?)
    }
}

#[repr(C)]
pub struct VocabularyOut {
    pub(crate) id_end: u32,
    pub(crate) bytes: *const u8,
    pub(crate) offsets: *const u32,
    pub(crate) flags: *const u8,
    bos_id: i32,
    eos_id: i32,
    adds_bos: u8,
    strips_leading_space: u8,
    encodes_segments: u8,
}

#[repr(C)]
pub struct PromptOut {
    text: *mut u8,
    text_size: usize,
    token_ids: *mut i32,
    token_ids_size: usize,
    segments: *mut Segment,
    segments_size: usize,
}

impl PromptOut {
    fn new(text: String, token_ids: Vec<u32>, segments: Vec<Segment>) -> Self {
        let (text, text_size) = into_raw(text.into_bytes());
        // Ids are below 2^20 (vocabulary.rs).
        let (token_ids, token_ids_size) =
            into_raw(token_ids.into_iter().map(|id| id as i32).collect());
        let (segments, segments_size) = into_raw(segments);
        Self { text, text_size, token_ids, token_ids_size, segments, segments_size }
    }
}

#[repr(C)]
pub struct ToolCallIn {
    id: Span,
    name: Span,
    arguments: Span,
}

#[repr(C)]
pub struct MessageIn {
    role: Span,
    content: Span,
    tool_calls: *const ToolCallIn,
    tool_calls_size: usize,
    tool_call_id: Span,
}

#[repr(C)]
pub struct ToolIn {
    name: Span,
    description: Span,
    parameters: Span,
}

#[repr(C)]
pub struct RenderOptions {
    add_generation_prompt: u8,
    now_unix_seconds: i64,
    tools: *const ToolIn,
    tools_size: usize,
}

#[repr(C)]
pub struct PropertiesOut {
    fences_arguments: u8,
}

/// Runs `body`; an error or a panic becomes a code and a message.
pub(crate) unsafe fn guarded(error: *mut ErrorOut, body: impl FnOnce() -> Result<()>) -> i32 {
    let outcome = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(outcome) => outcome,
        Err(panic) => Err(TextError { code: Code::Internal, message: panic_message(&*panic) }),
    };
    match outcome {
        Ok(()) => OK,
        Err(cause) => {
            write_error(&cause, &mut *error);
            cause.code as i32
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("text crate panicked: {}", text.unwrap_or("without a message"))
}

fn write_error(cause: &TextError, out: &mut ErrorOut) {
    let message = cause.message.replace(['\n', '\r'], " ");
    let mut size = message.len().min(MESSAGE_BYTES);
    while !message.is_char_boundary(size) {
        size -= 1;
    }
    out.code = cause.code as i32;
    out.message_size = size as u32;
    out.message[..size].copy_from_slice(&message.as_bytes()[..size]);
}

fn parse_config(json: &[u8], limits: &Limits) -> Result<config::TokenizerConfig> {
    match check_size("tokenizer_config.json", json.len(), limits.config_json_bytes_max) {
        Ok(()) => config::parse(json),
        Err(message) => invalid_model(message),
    }
}

fn into_raw<T>(values: Vec<T>) -> (*mut T, usize) {
    let size = values.len();
    (Box::into_raw(values.into_boxed_slice()).cast(), size)
}

unsafe fn free_raw<T>(data: *mut T, size: usize) {
    if !data.is_null() {
        drop(Box::from_raw(ptr::slice_from_raw_parts_mut(data, size)));
    }
}

/// # Safety
/// `data` points to `size` values that outlive the use of the result, or `size` is 0.
unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    match size {
        0 => &[],
        size => std::slice::from_raw_parts(data, size),
    }
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_tokenizer_load(
    limits: *const Limits,
    tokenizer_json: Span,
    config_json: Span,
    tokenizer: *mut *mut Arc<Tokenizer>,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        let config = parse_config(config_json.bytes(), &*limits)?;
        let loaded = Tokenizer::load(tokenizer_json.bytes(), &config, *limits)?;
        *tokenizer = Box::into_raw(Box::new(Arc::new(loaded)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_tokenizer_free(tokenizer: *mut Arc<Tokenizer>) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_tokenizer_vocabulary(
    tokenizer: *const Arc<Tokenizer>,
    vocabulary: *mut VocabularyOut,
) {
    let tokenizer = &**tokenizer;
    let id_of = |token: &Option<Named>| token.as_ref().map_or(-1, |token| token.id as i32);
    *vocabulary = VocabularyOut {
        id_end: tokenizer.vocabulary.flags.len() as u32,
        bytes: tokenizer.vocabulary.bytes.as_ptr(),
        offsets: tokenizer.vocabulary.offsets.as_ptr(),
        flags: tokenizer.vocabulary.flags.as_ptr(),
        bos_id: id_of(&tokenizer.bos),
        eos_id: id_of(&tokenizer.eos),
        adds_bos: tokenizer.adds_bos.into(),
        strips_leading_space: tokenizer.vocabulary.strips_leading_space.into(),
        encodes_segments: tokenizer.parts().is_some().into(),
    };
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_token_id(
    tokenizer: *const Arc<Tokenizer>,
    token: Span,
) -> i32 {
    let look_up = || {
        let id = token.text().ok().and_then(|text| (**tokenizer).token_id(text));
        id.map_or(-1, |id| id as i32)
    };
    catch_unwind(AssertUnwindSafe(look_up)).unwrap_or(-1)
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_prompt_free(prompt: *mut PromptOut) {
    let prompt = &mut *prompt;
    free_raw(prompt.text, prompt.text_size);
    free_raw(prompt.token_ids, prompt.token_ids_size);
    free_raw(prompt.segments, prompt.segments_size);
    *prompt = PromptOut {
        text: ptr::null_mut(),
        text_size: 0,
        token_ids: ptr::null_mut(),
        token_ids_size: 0,
        segments: ptr::null_mut(),
        segments_size: 0,
    };
}

unsafe fn checked_text<'a>(tokenizer: &Tokenizer, text: Span) -> Result<&'a str> {
    // The size comes first: checking UTF-8 takes time as well.
    if let Err(message) = check_size("text", text.size, tokenizer.limits.text_bytes_max) {
        return invalid_input(message);
    }
    text.text().map_err(|cause| cause.in_front("text is "))
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_encode(
    tokenizer: *const Arc<Tokenizer>,
    text: Span,
    control_as_tokens: u8,
    prompt: *mut PromptOut,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        let tokenizer = &**tokenizer;
        let control =
            if control_as_tokens != 0 { ControlText::AsTokens } else { ControlText::AsText };
        let token_ids = tokenizer.encode(checked_text(tokenizer, text)?, control)?;
        *prompt = PromptOut::new(String::new(), token_ids, Vec::new());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_segments(
    tokenizer: *const Arc<Tokenizer>,
    text: Span,
    control_as_tokens: u8,
    prompt: *mut PromptOut,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        let tokenizer = &**tokenizer;
        let text = checked_text(tokenizer, text)?;
        tokenizer.check_text(text)?;
        let segments = match (control_as_tokens, text.len()) {
            (_, 0) => Vec::new(),
            (0, end) => vec![Segment { begin: 0, end, control_id: -1 }],
            _ => tokenizer.require_parts()?.segments(text),
        };
        *prompt = PromptOut::new(String::new(), Vec::new(), segments);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_encode_piece(
    tokenizer: *const Arc<Tokenizer>,
    piece: Span,
    prompt: *mut PromptOut,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        let token_ids = (**tokenizer).require_parts()?.encode(piece.text()?);
        *prompt = PromptOut::new(String::new(), token_ids, Vec::new());
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_piece_end(
    tokenizer: *const Arc<Tokenizer>,
    text: Span,
    bytes_min: usize,
) -> usize {
    let look_up = || {
        let text = text.text().ok()?;
        Some((**tokenizer).parts()?.piece_end(text, bytes_min))
    };
    catch_unwind(AssertUnwindSafe(look_up)).ok().flatten().unwrap_or(text.size)
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_template_load(
    tokenizer: *const Arc<Tokenizer>,
    config_json: Span,
    template_file: Span,
    chat_template: *mut *mut ChatTemplate,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        let tokenizer = &*tokenizer;
        let limits = &tokenizer.limits;
        let config = parse_config(config_json.bytes(), limits)?;
        let check =
            check_size("chat_template.jinja", template_file.size, limits.config_json_bytes_max);
        if let Err(message) = check {
            return invalid_model(message);
        }
        let file = match std::str::from_utf8(template_file.bytes()) {
            Ok(file) => (!file.is_empty()).then_some(file),
            Err(cause) => return invalid_model(format!("chat_template.jinja: {cause}")),
        };
        let loaded = ChatTemplate::load(Arc::clone(tokenizer), config, file)?;
        *chat_template = Box::into_raw(Box::new(loaded));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_template_free(chat_template: *mut ChatTemplate) {
    if !chat_template.is_null() {
        drop(Box::from_raw(chat_template));
    }
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_template_properties_of(
    chat_template: *const ChatTemplate,
    properties: *mut PropertiesOut,
) {
    *properties = PropertiesOut { fences_arguments: (*chat_template).fences_arguments().into() };
}

unsafe fn text_at<'a>(span: Span, at: impl Fn() -> String) -> Result<&'a str> {
    span.text().map_err(|cause| cause.in_front(&format!("{} is ", at())))
}

unsafe fn message_of<'a>(message: &MessageIn, index: usize) -> Result<Message<'a>> {
    let at = |field: &str| format!("messages[{index}].{field}");
    let calls = slice(message.tool_calls, message.tool_calls_size);
    let mut tool_calls = Vec::with_capacity(calls.len());
    for (call_index, call) in calls.iter().enumerate() {
        let at = |field: &str| at(&format!("tool_calls[{call_index}].{field}"));
        tool_calls.push(ToolCall {
            id: text_at(call.id, || at("id"))?,
            name: text_at(call.name, || at("name"))?,
            arguments: text_at(call.arguments, || at("arguments"))?,
        });
    }
    Ok(Message {
        role: text_at(message.role, || at("role"))?,
        content: text_at(message.content, || at("content"))?,
        tool_calls,
        tool_call_id: text_at(message.tool_call_id, || at("tool_call_id"))?,
    })
}

unsafe fn tool_of<'a>(tool: &ToolIn, index: usize) -> Result<Tool<'a>> {
    let at = |field: &str| format!("tools[{index}].{field}");
    Ok(Tool {
        name: text_at(tool.name, || at("name"))?,
        description: text_at(tool.description, || at("description"))?,
        parameters: text_at(tool.parameters, || at("parameters"))?,
    })
}

/// Bytes of a message as a client sent it.
unsafe fn size_of(message: &MessageIn) -> usize {
    let calls = slice(message.tool_calls, message.tool_calls_size);
    let size = |call: &ToolCallIn| {
        call.id.size.saturating_add(call.name.size).saturating_add(call.arguments.size)
    };
    let calls = calls.iter().map(size).fold(0, usize::saturating_add);
    calls.saturating_add(message.content.size).saturating_add(message.tool_call_id.size)
}

#[no_mangle]
pub unsafe extern "C" fn baleen_text_render(
    chat_template: *const ChatTemplate,
    messages: *const MessageIn,
    messages_size: usize,
    options: *const RenderOptions,
    prompt: *mut PromptOut,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        let (chat_template, options) = (&*chat_template, &*options);
        let messages_in = slice(messages, messages_size);
        let tools_in = slice(options.tools, options.tools_size);
        let tool_size = |tool: &ToolIn| {
            tool.name
                .size
                .saturating_add(tool.description.size)
                .saturating_add(tool.parameters.size)
        };
        chat_template.check_sizes(
            messages_in.iter().map(|message| size_of(message)),
            tools_in.iter().map(tool_size),
        )?;
        let mut messages = Vec::with_capacity(messages_in.len());
        for (index, message) in messages_in.iter().enumerate() {
            messages.push(message_of(message, index)?);
        }
        let mut tools = Vec::with_capacity(tools_in.len());
        for (index, tool) in tools_in.iter().enumerate() {
            tools.push(tool_of(tool, index)?);
        }
        let rendered = chat_template.render(&Request {
            messages,
            tools,
            add_generation_prompt: options.add_generation_prompt != 0,
            now_unix_seconds: options.now_unix_seconds,
        })?;
        *prompt = match rendered.encoding {
            Encoding::Segments(segments) => PromptOut::new(rendered.text, Vec::new(), segments),
            Encoding::TokenIds(ids) => PromptOut::new(rendered.text, ids, Vec::new()),
        };
        Ok(())
    })
}
