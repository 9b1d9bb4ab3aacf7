//! Hugging Face tokenization and chat templates, behind the C ABI of `baleen_text.h`, and structured output, behind that
//! of `baleen_grammar.h`.
//!
//! `ffi` and `grammar_ffi` are the only modules that know of C; the others are ordinary Rust and return `Result<_, TextError>`.

mod byte_level;
mod config;
mod control;
mod conversation;
mod error;
mod ffi;
mod filters;
mod grammar;
mod grammar_ffi;
mod grammar_source;
mod template;
mod tokenizer;
mod vocabulary;
