//! Hugging Face tokenization and chat templates for the router, behind the C ABI of `baleen_text.h`.
//!
//! `ffi` is the only module that knows of C; the others are ordinary Rust and return `Result<_, TextError>`.

mod config;
mod control;
mod error;
mod ffi;
mod filters;
mod template;
mod tokenizer;
mod vocabulary;
