//! The C ABI of baleen_grammar.h. Pointers are as that header promises; every function catches panics.

use crate::error::{invalid_input, Result};
use crate::ffi::{guarded, ErrorOut, Span, VocabularyOut};
use crate::grammar::{Grammar, Kind, Limits, Matcher, Tokens, Vocabulary};
use std::panic::{catch_unwind, AssertUnwindSafe};

unsafe fn slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    match size {
        0 => &[],
        _ => std::slice::from_raw_parts(data, size),
    }
}

/// Frees what a function of this file has handed out; null is nothing.
unsafe fn free<T>(object: *mut T) {
    if !object.is_null() {
        // A destructor that panics has nowhere to say so.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(object))));
    }
}

fn kind_of(kind: i32) -> Result<Kind> {
    match kind {
        0 => Ok(Kind::JsonSchema),
        1 => Ok(Kind::Regex),
        2 => Ok(Kind::Lark),
        _ => invalid_input("unknown kind of grammar"),
    }
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_vocabulary_create(
    tokens: *const VocabularyOut,
    size: u32,
    eos_ids: *const i32,
    eos_ids_size: usize,
    vocabulary: *mut *mut Vocabulary,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        let tokens = &*tokens;
        let ids = tokens.id_end as usize;
        let offsets = slice(tokens.offsets, ids + 1);
        let eos_ids: Vec<u32> = slice(eos_ids, eos_ids_size).iter().map(|&id| id as u32).collect();
        let tokens = Tokens {
            bytes: slice(tokens.bytes, offsets[ids] as usize),
            offsets,
            flags: slice(tokens.flags, ids),
        };
        *vocabulary = Box::into_raw(Box::new(Vocabulary::new(&tokens, size, &eos_ids)?));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_vocabulary_free(vocabulary: *mut Vocabulary) {
    free(vocabulary);
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_vocabulary_size(vocabulary: *const Vocabulary) -> u32 {
    (*vocabulary).size()
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_compile(
    vocabulary: *const Vocabulary,
    kind: i32,
    source: Span,
    limits: *const Limits,
    grammar: *mut *mut Grammar,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        let compiled = Grammar::compile(&*vocabulary, kind_of(kind)?, source.bytes(), &*limits)?;
        *grammar = Box::into_raw(Box::new(compiled));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_free(grammar: *mut Grammar) {
    free(grammar);
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_matcher_create(
    grammar: *const Grammar,
    matcher: *mut *mut Matcher,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || {
        *matcher = Box::into_raw(Box::new(Matcher::new(&*grammar)));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_matcher_free(matcher: *mut Matcher) {
    free(matcher);
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_matcher_mask(
    matcher: *mut Matcher,
    words: *mut u32,
    words_size: usize,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || (*matcher).mask(std::slice::from_raw_parts_mut(words, words_size)))
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_matcher_consume(
    matcher: *mut Matcher,
    token: i32,
    error: *mut ErrorOut,
) -> i32 {
    guarded(error, || (*matcher).consume(token as u32))
}

#[no_mangle]
pub unsafe extern "C" fn baleen_grammar_matcher_is_stopped(matcher: *const Matcher) -> u8 {
    (*matcher).is_stopped().into()
}
