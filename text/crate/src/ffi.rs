//! The C ABI of baleen_text.h. Pointers are as that header promises; every function catches panics.

use crate::config;
use crate::error::{check_size, invalid_input, invalid_model, Code, Result, TextError};
use crate::template::{ChatTemplate, Message, Prompt};
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
}

#[repr(C)]
pub struct PromptOut {
    text: *mut u8,
    text_size: usize,
    token_ids: *mut i32,
    token_ids_size: usize,
}

#[repr(C)]
pub struct MessageIn {
    role: Span,
    content: Span,
}

#[repr(C)]
pub struct RenderOptions {
    add_generation_prompt: u8,
    now_unix_seconds: i64,
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

fn token_ids_out(ids: Vec<u32>) -> Vec<i32> {
    // Ids are below 2^20 (vocabulary.rs).
    ids.into_iter().map(|id| id as i32).collect()
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
    *prompt = PromptOut {
        text: ptr::null_mut(),
        text_size: 0,
        token_ids: ptr::null_mut(),
        token_ids_size: 0,
    };
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
        // The size comes first: checking UTF-8 takes time as well.
        if let Err(message) = check_size("text", text.size, tokenizer.limits.text_bytes_max) {
            return invalid_input(message);
        }
        let text = text.text().map_err(|cause| cause.in_front("text is "))?;
        let (token_ids, token_ids_size) = into_raw(token_ids_out(tokenizer.encode(text, control)?));
        *prompt = PromptOut { text: ptr::null_mut(), text_size: 0, token_ids, token_ids_size };
        Ok(())
    })
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
        let messages = match messages_size {
            0 => &[],
            size => std::slice::from_raw_parts(messages, size),
        };
        chat_template.check_sizes(messages.iter().map(|message| message.content.size))?;
        let mut parsed = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let at = |field: &str| format!("messages[{index}].{field} is ");
            parsed.push(Message {
                role: message.role.text().map_err(|cause| cause.in_front(&at("role")))?,
                content: message.content.text().map_err(|cause| cause.in_front(&at("content")))?,
            });
        }
        let now = options.now_unix_seconds;
        let Prompt { text, token_ids } =
            chat_template.render(&parsed, options.add_generation_prompt != 0, now)?;
        let (token_ids, token_ids_size) = into_raw(token_ids_out(token_ids));
        let (text, text_size) = into_raw(text.into_bytes());
        *prompt = PromptOut { text, text_size, token_ids, token_ids_size };
        Ok(())
    })
}
