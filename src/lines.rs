//! Splitting text into lines: finding line breaks and replacing them with the start of the next
//! field line. Does not depend on Python.
//!
//! A line break is CRLF, LF or CR, as the WHATWG standard defines it, and nothing else.

use std::ops::BitOr;

use memchr::memchr2;
use wide::u8x16;

use crate::output::Output;

/// The `data: <line>` lines of a text. Their size is known before they are written.
pub struct DataLines<'a> {
    text: &'a [u8],
    breaks: usize,
    size: usize,
}

impl<'a> DataLines<'a> {
    const PREFIX: &'static [u8; 7] = b"\ndata: ";

    /// Count the lines of `text`.
    pub fn of(text: &'a [u8]) -> Self {
        let mut size = Self::PREFIX.len() + text.len();
        let mut breaks = 0;
        // Most texts have no line break, and searching for one is cheaper than counting.
        if memchr2(b'\r', b'\n', text).is_some() {
            breaks = count(text, |byte| matches!(byte, b'\r' | b'\n'));
            size -= breaks;
            breaks -= count_crlf(text);
            size += breaks * Self::PREFIX.len();
        }
        Self { text, breaks, size }
    }

    /// Return the size of the lines in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Pass the lines to `put`, piece by piece. Each piece is written to `scratch` first, because
    /// lines can be short and calls of `put` expensive.
    ///
    /// # Errors
    ///
    /// The errors of `put`.
    pub fn write<E>(
        &self,
        scratch: &mut Output,
        mut put: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        const PIECE: usize = 4096;
        put(&Self::PREFIX[1..])?;
        if self.breaks == 0 {
            put(self.text)?;
        } else {
            let mut rest = self.text;
            while !rest.is_empty() {
                let mut end = rest.len().min(PIECE);
                // A CRLF is one line break, so both characters must be in the same piece.
                if rest[end - 1..].starts_with(b"\r\n") {
                    end += 1;
                }
                let (piece, after) = rest.split_at(end);
                scratch.truncate(0);
                append_lines(scratch, Self::PREFIX, piece);
                put(scratch)?;
                rest = after;
            }
        }
        put(b"\n")
    }
}

/// Append `text`, with `prefix` in place of each line break.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "a call would double the cost of short texts, and the length of `prefix` is constant"
)]
pub(crate) fn append_lines(out: &mut Output, prefix: &[u8], text: &[u8]) {
    let mut start = 0;
    let (blocks, rest) = text.as_chunks::<64>();
    let breaks = blocks.iter().map(|block| line_breaks(block));
    for (index, mut breaks) in breaks.chain([line_breaks(rest)]).enumerate() {
        while breaks != 0 {
            let at = 64 * index + breaks.trailing_zeros() as usize;
            breaks &= breaks - 1;
            if at < start {
                continue; // This is the LF of a CRLF.
            }
            out.extend_from_slice(&text[start..at]);
            out.extend_from_slice(prefix);
            start = at + 1;
            if text[at..].starts_with(b"\r\n") {
                start += 1;
            }
        }
    }
    out.extend_from_slice(&text[start..]);
}

/// The size of the blocks that are counted in a `u8`, which the compiler turns into SIMD. A block
/// must be shorter than 256 bytes, so that its count fits.
const COUNTED_AT_ONCE: usize = 192;

/// Return the number of bytes that are counted.
fn count(text: &[u8], is_counted: impl Fn(u8) -> bool) -> usize {
    let flags = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(is_counted(*byte))).sum();
    let counts = text.chunks(COUNTED_AT_ONCE).map(flags);
    counts.map(|count: u8| usize::from(count)).sum()
}

/// Return the number of CRLF pairs.
fn count_crlf(text: &[u8]) -> usize {
    let first = text.chunks(COUNTED_AT_ONCE);
    let second = text.get(1..).unwrap_or_default().chunks(COUNTED_AT_ONCE);
    let counts = first.zip(second).map(|(first, second)| {
        let pairs = first.iter().zip(second);
        pairs
            .map(|(first, second)| u8::from(*first == b'\r' && *second == b'\n'))
            .sum()
    });
    counts.map(|count: u8| usize::from(count)).sum()
}

/// Return a bit for each of up to 64 bytes, set where the byte is CR or LF. The lowest bit is that
/// of the first byte.
///
/// To find all breaks, calling `memchr` for each next one takes half as long again, although it
/// uses wider instructions.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "for blocks of 64 bytes the compiler removes the loops"
)]
fn line_breaks(block: &[u8]) -> u64 {
    let in_vector = |vector| u64::from(breaks_in_vector(vector).to_bitmask());
    let (vectors, rest) = block.as_chunks::<16>();
    let mut breaks = 0;
    for (index, vector) in vectors.iter().enumerate() {
        breaks |= in_vector(vector) << (16 * index);
    }
    if let Some(last) = block.last_chunk::<16>() {
        // This vector overlaps the one before. Setting a bit twice does no harm.
        breaks |= in_vector(last) << (block.len() - 16);
    } else {
        for (index, byte) in rest.iter().enumerate() {
            breaks |= u64::from(matches!(byte, b'\r' | b'\n')) << index;
        }
    }
    breaks
}

/// Return a mask with all bits of a byte set where it is CR or LF.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is two instructions")]
fn breaks_in_vector(vector: &[u8; 16]) -> u8x16 {
    let vector = u8x16::new(*vector);
    vector.simd_eq(u8x16::splat(b'\r')) | vector.simd_eq(u8x16::splat(b'\n'))
}

/// Return whether `value` contains CR or LF. Most values do not, so the search does not stop early:
/// that would cost a branch for each vector.
#[inline]
pub(crate) fn has_line_break(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk::<16>() else {
        return line_breaks(value) != 0;
    };
    let (vectors, _) = value.as_chunks::<16>();
    let breaks = vectors.iter().map(breaks_in_vector);
    breaks.fold(breaks_in_vector(last), BitOr::bitor).any()
}
