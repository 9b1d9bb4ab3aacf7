//! What kind of character each code point is, from the tables that the regular expressions of `tokenizers` use.

use regex_syntax::hir::{Class, HirKind};
use std::sync::OnceLock;

pub const LETTER: u8 = 1;
pub const MARK: u8 = 2;
pub const DIGIT: u8 = 4; // \p{N}: Roman numerals and fractions too
pub const PUNCTUATION: u8 = 8; // \p{P} and \p{S}
pub const WHITE_SPACE: u8 = 16;
pub const LINE_END: u8 = 32; // \r and \n, which are WHITE_SPACE as well
/// What DeepSeek's second pattern takes apart: CJK ideographs and kana.
pub const CJK: u8 = 64;

const CODE_POINTS: usize = 0x11_0000;

const PATTERNS: [(&str, u8); 9] = [
    (r"\p{L}", LETTER),
    (r"\p{M}", MARK),
    (r"\p{N}", DIGIT),
    (r"\p{P}", PUNCTUATION),
    (r"\p{S}", PUNCTUATION),
    (r"\s", WHITE_SPACE),
    (r"[\r\n]", LINE_END),
    ("[一-龥]", CJK),
    ("[぀-ゟ゠-ヿ]", CJK),
];

/// A byte of flags for each code point, 1.1 MB, shared by all tokenizers of the process.
pub struct Classes(Vec<u8>);

impl Classes {
    pub fn get() -> &'static Classes {
        static CLASSES: OnceLock<Classes> = OnceLock::new();
        CLASSES.get_or_init(|| {
            let mut flags = vec![0; CODE_POINTS];
            for (pattern, class) in PATTERNS {
                mark(pattern, class, &mut flags);
            }
            Classes(flags)
        })
    }

    pub fn of(&self, c: char) -> u8 {
        self.0[c as usize]
    }
}

fn mark(pattern: &str, class: u8, flags: &mut [u8]) {
    let hir = regex_syntax::parse(pattern).expect("a pattern of this file");
    match hir.kind() {
        HirKind::Class(Class::Unicode(ranges)) => {
            for range in ranges.ranges() {
                for flag in &mut flags[range.start() as usize..=range.end() as usize] {
                    *flag |= class;
                }
            }
        }
        _ => unreachable!("the patterns of this file are classes beyond ASCII, or of it alone"),
    }
}
