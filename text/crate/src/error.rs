//! What can go wrong, in the terms of the C ABI.

/// Who has to act. The numbers are those of `enum baleen_text_code` in baleen_text.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// The request is at fault: too long, not UTF-8, refused by the template.
    InvalidInput = 1,
    /// A file of the model directory is at fault.
    InvalidModel = 2,
    /// This crate or one that it uses is at fault.
    Internal = 3,
    /// The model directory does not have it.
    NotFound = 4,
}

#[derive(Debug)]
pub struct TextError {
    pub code: Code,
    pub message: String,
}

impl TextError {
    /// Names what the error is about.
    pub fn in_front(mut self, what: &str) -> Self {
        self.message.insert_str(0, what);
        self
    }
}

impl From<std::str::Utf8Error> for TextError {
    fn from(cause: std::str::Utf8Error) -> Self {
        let message = format!("not valid UTF-8 at byte {}", cause.valid_up_to());
        Self { code: Code::InvalidInput, message }
    }
}

pub type Result<T> = std::result::Result<T, TextError>;

pub fn invalid_input<T>(message: impl Into<String>) -> Result<T> {
    Err(TextError { code: Code::InvalidInput, message: message.into() })
}

pub fn invalid_model<T>(message: impl Into<String>) -> Result<T> {
    Err(TextError { code: Code::InvalidModel, message: message.into() })
}

pub fn not_found<T>(message: impl Into<String>) -> Result<T> {
    Err(TextError { code: Code::NotFound, message: message.into() })
}

/// Wraps an error of a crate that we use.
pub fn internal(what: &str, cause: impl std::fmt::Display) -> TextError {
    TextError { code: Code::Internal, message: format!("{what}: {cause}") }
}

/// Checked before anything is done with outside bytes.
pub fn check_size(what: &str, size: usize, limit: usize) -> std::result::Result<(), String> {
    if size > limit {
        return Err(format!("{what} is {size} bytes, limit {limit}"));
    }
    Ok(())
}
