//! A fuzzer's bytes, taken apart: numbers, and sections that begin with their length.

/// What hasn't been taken yet.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    /// 0 at the end.
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// As many bytes as the next two say, or as there are.
    pub(super) fn section(&mut self) -> &'a [u8] {
        let length = u16::from_be_bytes([self.byte(), self.byte()]);
        let (section, rest) = self.0.split_at(usize::from(length).min(self.0.len()));
        self.0 = rest;
        section
    }
}
