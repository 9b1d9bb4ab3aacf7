//! Control tokens in a text: the longest at the first place where there is one, again and again.

use crate::control::is_control;
use tokenizers::Tokenizer;

/// A part of a text that is encoded for itself: a control token, or what is between two.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Segment {
    pub begin: usize,
    pub end: usize,
    /// -1: text.
    pub control_id: i32,
}

/// A trie of their bytes.
pub struct Controls {
    nodes: Vec<Node>,
    begins: [bool; 256],
}

#[derive(Default)]
struct Node {
    children: Vec<(u8, u32)>,
    id: Option<u32>,
}

impl Controls {
    /// None if any added token is not a control token, or takes white space or word ends into account.
    pub fn of_all_added(tokenizer: &Tokenizer) -> Option<Self> {
        let mut result = Self { nodes: vec![Node::default()], begins: [false; 256] };
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            if !is_control(&token) || token.single_word || token.lstrip || token.rstrip {
                return None;
            }
            result.insert(token.content.as_bytes(), id)?;
        }
        Some(result)
    }

    fn insert(&mut self, content: &[u8], id: u32) -> Option<()> {
        self.begins[*content.first()? as usize] = true;
        let mut at = 0;
        for &byte in content {
            at = match self.child(at, byte) {
                Some(child) => child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node::default());
                    self.nodes[at].children.push((byte, child as u32));
                    child
                }
            };
        }
        self.nodes[at].id = Some(id);
        Some(())
    }

    fn child(&self, node: usize, byte: u8) -> Option<usize> {
        let mut children = self.nodes[node].children.iter();
        children.find(|(own, _)| *own == byte).map(|(_, child)| *child as usize)
    }

    /// `text` without `sentinel`, and the parts of that.
    pub fn segments(&self, text: &str, sentinel: Option<char>) -> (String, Vec<Segment>) {
        let mut clean = String::with_capacity(text.len());
        let mut segments = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let found = self.find(text, at);
            let plain = &text[at..found.map_or(text.len(), |(begin, _, _)| begin)];
            let begin = clean.len();
            match sentinel {
                Some(sentinel) => clean.extend(plain.split(sentinel)),
                None => clean.push_str(plain),
            }
            if clean.len() > begin {
                segments.push(Segment { begin, end: clean.len(), control_id: -1 });
            }
            let Some((begin, end, id)) = found else { break };
            let control = Segment {
                begin: clean.len(),
                end: clean.len() + end - begin,
                control_id: id as i32, // ids are below 2^20
            };
            clean.push_str(&text[begin..end]);
            segments.push(control);
            at = end;
        }
        (clean, segments)
    }

    /// The first control token at or behind `from`: begin, end, id.
    fn find(&self, text: &str, from: usize) -> Option<(usize, usize, u32)> {
        let bytes = text.as_bytes();
        (from..bytes.len()).filter(|at| self.begins[bytes[*at] as usize]).find_map(|begin| {
            let mut node = 0;
            let mut found = None;
            for (at, &byte) in bytes.iter().enumerate().skip(begin) {
                match self.child(node, byte) {
                    Some(child) => node = child,
                    None => break,
                }
                if let Some(id) = self.nodes[node].id {
                    found = Some((begin, at + 1, id));
                }
            }
            found
        })
    }
}
