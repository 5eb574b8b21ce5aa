//! `Output`: the bytes that frames are written to.
//!
//! When memory runs out, an output drops what is written to it and is *torn*. Writers do not check
//! every write. The code that creates the output checks once, at the end of the frame.

use std::fmt;
use std::ops::Deref;

/// Memory ran out while a frame was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not enough memory for an event")
    }
}

impl std::error::Error for OutOfMemory {}

/// A `Vec` of bytes that does not abort the process when it cannot grow.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    is_torn: bool,
}

impl Output {
    /// Return whether there is room. The expression is that of `Vec`, so the compiler merges the
    /// two checks and an `Output` costs no more than a `Vec`.
    #[inline]
    fn has_room(&self, additional: usize) -> bool {
        additional <= self.bytes.capacity().wrapping_sub(self.bytes.len())
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, additional: usize) -> bool {
        // A torn output does not try again: every byte of the rest would be another system call.
        self.is_torn = self.is_torn || self.bytes.try_reserve(additional).is_err();
        !self.is_torn
    }

    /// Make room for `additional` bytes and return whether that worked.
    #[inline]
    pub fn reserve(&mut self, additional: usize) -> bool {
        self.has_room(additional) || self.grow(additional)
    }

    /// Append one byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        if self.has_room(1) || self.grow(1) {
            self.bytes.push(byte);
        }
    }

    /// Append `bytes`.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) || self.grow(bytes.len()) {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Append `N` zeros and return them for writing, or `None` if memory ran out.
    #[inline]
    pub fn extend_by<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let len = self.bytes.len();
        self.extend_from_slice(&[0; N]);
        self.bytes.get_mut(len..)?.first_chunk_mut()
    }

    /// Drop everything after the first `len` bytes.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Check that everything was written.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`] if the output is torn.
    #[inline]
    pub fn check(&self) -> Result<(), OutOfMemory> {
        if self.is_torn {
            Err(OutOfMemory)
        } else {
            Ok(())
        }
    }
}

impl From<Vec<u8>> for Output {
    fn from(bytes: Vec<u8>) -> Self {
        let is_torn = false;
        Self { bytes, is_torn }
    }
}

impl From<Output> for Vec<u8> {
    fn from(output: Output) -> Self {
        output.bytes
    }
}

impl Deref for Output {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_noticed_and_nothing_before_it_is_lost() {
        let mut output = Output::from(b"abc".to_vec());
        assert!(!output.reserve(usize::MAX));
        assert_eq!(output.check(), Err(OutOfMemory));
        output.push(b'd');
        assert!(output.starts_with(b"abc"));
        assert_eq!(output.check(), Err(OutOfMemory));
        assert_eq!(Output::from(Vec::from(output)).check(), Ok(()));
    }
}
