//! Splitting text into lines: finding line breaks and replacing them with the start of the next
//! field line. Does not depend on Python.
//!
//! A line break is CRLF, LF or CR, as the WHATWG standard defines it, and nothing else.

use std::convert::Infallible;
use std::io::{self, Write};
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

    /// Return the line of `text`, or `None` if there are several lines.
    pub fn one(text: &'a [u8]) -> Option<Self> {
        memchr2(b'\r', b'\n', text).is_none().then(|| Self {
            text,
            breaks: 0,
            size: Self::PREFIX.len() + text.len(),
        })
    }

    /// Count the lines of `text`.
    pub fn of(text: &'a [u8]) -> Self {
        let (cr, lf) = count_cr_and_lf(text);
        let breaks = cr + lf - if cr == 0 { 0 } else { count_crlf(text) };
        let size = text.len() - cr - lf + (breaks + 1) * Self::PREFIX.len();
        Self { text, breaks, size }
    }

    /// Return the size of the lines in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Return the pieces of the line, or `None` if there are several lines.
    pub fn pieces(&self) -> Option<[&[u8]; 3]> {
        (self.breaks == 0).then_some([&Self::PREFIX[1..], self.text, b"\n"])
    }

    /// Write the lines to `out`, which gets two pieces for each.
    ///
    /// # Errors
    ///
    /// The errors of `out`.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(&Self::PREFIX[1..])?;
        split(self.text, Self::PREFIX, |piece| out.write_all(piece))?;
        out.write_all(b"\n")
    }
}

/// Append `text`, with `prefix` in place of each line break.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "a call would double the cost of short texts, and the length of `prefix` is constant"
)]
pub(crate) fn append_lines(out: &mut Output, prefix: &[u8], text: &[u8]) {
    let Ok(()) = split(text, prefix, |piece| {
        out.extend_from_slice(piece);
        Ok::<_, Infallible>(())
    });
}

/// Pass the pieces of `text` to `put`, with `prefix` in place of each line break.
#[inline(always)]
#[expect(clippy::inline_always, reason = "as for `append_lines`")]
fn split<E>(
    text: &[u8],
    prefix: &[u8],
    mut put: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut start = 0;
    for (index, block) in text.chunks(64).enumerate() {
        let mut breaks = match block.first_chunk::<64>() {
            Some(block) => line_breaks_in_block(block),
            None => line_breaks(block),
        };
        while breaks != 0 {
            let at = 64 * index + breaks.trailing_zeros() as usize;
            breaks &= breaks - 1;
            if at < start {
                continue; // This is the LF of a CRLF.
            }
            put(&text[start..at])?;
            put(prefix)?;
            start = at + 1;
            if text[at..].starts_with(b"\r\n") {
                start += 1;
            }
        }
    }
    put(&text[start..])
}

/// The number of vectors that can be counted in the lanes of another vector. The lanes are `u8`.
const COUNTED_AT_ONCE: usize = 255;

/// Return the numbers of CR and of LF.
fn count_cr_and_lf(text: &[u8]) -> (usize, usize) {
    let (mut cr, mut lf) = (0, 0);
    let (vectors, rest) = text.as_chunks::<16>();
    for byte in rest {
        cr += usize::from(*byte == b'\r');
        lf += usize::from(*byte == b'\n');
    }
    for vectors in vectors.chunks(COUNTED_AT_ONCE) {
        let (mut crs, mut lfs) = (u8x16::ZERO, u8x16::ZERO);
        for vector in vectors {
            // A mask of all ones is -1.
            crs -= u8x16::new(*vector).simd_eq(u8x16::splat(b'\r'));
            lfs -= u8x16::new(*vector).simd_eq(u8x16::splat(b'\n'));
        }
        cr += sum(crs);
        lf += sum(lfs);
    }
    (cr, lf)
}

/// Return the number of CRLF pairs.
fn count_crlf(text: &[u8]) -> usize {
    let (first, _) = text.as_chunks::<16>();
    let (second, _) = text.get(1..).unwrap_or_default().as_chunks::<16>();
    let mut pairs = 0;
    for pair in text[16 * second.len()..].windows(2) {
        pairs += usize::from(pair == b"\r\n");
    }
    let first = first.chunks(COUNTED_AT_ONCE);
    for (first, second) in first.zip(second.chunks(COUNTED_AT_ONCE)) {
        let mut counts = u8x16::ZERO;
        for (first, second) in first.iter().zip(second) {
            let cr = u8x16::new(*first).simd_eq(u8x16::splat(b'\r'));
            let lf = u8x16::new(*second).simd_eq(u8x16::splat(b'\n'));
            counts -= cr & lf;
        }
        pairs += sum(counts);
    }
    pairs
}

/// Return the sum of the lanes.
fn sum(counts: u8x16) -> usize {
    counts.to_array().into_iter().map(usize::from).sum()
}

/// Return a bit for each byte, set where the byte is CR or LF. The lowest bit is that of the first
/// byte.
///
/// To find all breaks, calling `memchr` for each next one takes half as long again, although it
/// uses wider instructions.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "it is called for every block of a text"
)]
fn line_breaks_in_block(block: &[u8; 64]) -> u64 {
    // Written out, because the compiler does not unroll the loop everywhere it is inlined.
    let (vectors, _) = block.as_chunks::<16>();
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|index| bits(&vectors[index]));
    first | second << 16 | third << 32 | fourth << 48
}

/// As [`line_breaks_in_block`], for up to 64 bytes.
#[inline]
fn line_breaks(block: &[u8]) -> u64 {
    let (vectors, rest) = block.as_chunks::<16>();
    let mut breaks = 0;
    for (index, vector) in vectors.iter().enumerate() {
        breaks |= bits(vector) << (16 * index);
    }
    if let Some(last) = block.last_chunk::<16>() {
        // This vector overlaps the one before. Setting a bit twice does no harm.
        breaks |= bits(last) << (block.len() - 16);
    } else {
        for (index, byte) in rest.iter().enumerate() {
            breaks |= u64::from(matches!(byte, b'\r' | b'\n')) << index;
        }
    }
    breaks
}

/// Return a bit for each byte of `vector`, set where it is CR or LF.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is a few instructions")]
fn bits(vector: &[u8; 16]) -> u64 {
    u64::from(breaks_in_vector(vector).to_bitmask())
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
