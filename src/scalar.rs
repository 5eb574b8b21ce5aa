//! JSON of a float and of a string. No Python in it, but for the name of the spelling.

use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// How JSON is spelled: the same values in other bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As `json.dumps` does when it is not told otherwise, so as FastAPI does: a space after every
    /// comma and colon, ASCII only.
    Fastapi,
    /// As orjson and pydantic do: no spaces, and UTF-8 wherever JSON allows it.
    Compact,
}

impl Spelling {
    pub(crate) fn comma(self) -> &'static [u8] {
        match self {
            Self::Fastapi => b", ",
            Self::Compact => b",",
        }
    }

    pub(crate) fn colon(self) -> &'static [u8] {
        match self {
            Self::Fastapi => b": ",
            Self::Compact => b":",
        }
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Spelling {
    type Error = PyErr;

    fn extract(name: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        for (word, spelling) in [("fastapi", Self::Fastapi), ("compact", Self::Compact)] {
            if name.eq(word)? {
                return Ok(spelling);
            }
        }
        Err(PyValueError::new_err(format!(
            "json must be 'fastapi' or 'compact', not {}",
            name.repr()?
        )))
    }
}

/// Writes the shortest digits that make the same float; JSON has no word for what is not finite.
pub(crate) fn write_float(value: f64, spelling: Spelling, out: &mut Vec<u8>) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(value);
    // Between these Python lays the digits out in the same way.
    let is_repr = value == 0.0 || (1e-4..1e16).contains(&value.abs());
    if is_repr || spelling == Spelling::Compact {
        out.extend_from_slice(shortest.as_bytes());
    } else {
        write_float_as_repr(shortest, out);
    }
}

/// Writes a finite float as `float.__repr__` does.
fn write_float_as_repr(shortest: &str, out: &mut Vec<u8>) {
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let (negative, mantissa) = mantissa
        .strip_prefix('-')
        .map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i32 = exponent.parse().unwrap_or_default();

    // The value is 0.DIGITS × 10^point.
    let mut digits = [0_u8; 40];
    let mut count = 0;
    let mut point = exponent;
    for (is_whole, byte) in whole
        .bytes()
        .map(|b| (true, b))
        .chain(fraction.bytes().map(|b| (false, b)))
    {
        let leading_zero = count == 0 && byte == b'0';
        if is_whole && !leading_zero {
            point += 1;
        } else if !is_whole && leading_zero {
            point -= 1;
        }
        if !leading_zero {
            digits[count] = byte;
            count += 1;
        }
    }
    while count > 0 && digits[count - 1] == b'0' {
        count -= 1;
    }
    if negative {
        out.push(b'-');
    }
    if count == 0 {
        out.extend_from_slice(b"0.0");
        return;
    }
    layout_float(&digits[..count], point, out);
}

/// Python's choice between `123.4` and `1.234e+20`: the latter from 1e16 up and below 1e-4.
fn layout_float(digits: &[u8], point: i32, out: &mut Vec<u8>) {
    let zeros = |out: &mut Vec<u8>, n: i32| out.extend((0..n).map(|_| b'0'));
    if point <= -4 || point > 16 {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let exponent = point - 1;
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(exponent.abs()).as_bytes());
    } else if let Ok(whole @ 1..) = usize::try_from(point) {
        if digits.len() > whole {
            out.extend_from_slice(&digits[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        } else {
            let before = out.len();
            out.extend_from_slice(digits);
            out.resize(before + whole, b'0');
            out.extend_from_slice(b".0");
        }
    } else {
        out.extend_from_slice(b"0.");
        zeros(out, -point);
        out.extend_from_slice(digits);
    }
}

/// Writes `text` quoted. What has to be escaped depends on the spelling: everything outside
/// printable ASCII (DEL included, as in `json.dumps`), or only what JSON demands.
pub(crate) fn write_string(text: &str, spelling: Spelling, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut at = 0;
    while at < bytes.len() {
        let clean = match spelling {
            Spelling::Fastapi => clean_prefix(&bytes[at..], is_printable_ascii),
            Spelling::Compact => clean_prefix(&bytes[at..], is_no_control),
        };
        out.extend_from_slice(&bytes[at..at + clean]);
        at += clean;
        // Characters to escape come in runs, as in CJK text.
        for c in text[at..].chars() {
            let needs_escape = match spelling {
                Spelling::Fastapi => !(' '..='~').contains(&c),
                Spelling::Compact => c < ' ',
            };
            if !needs_escape && c != '"' && c != '\\' {
                break;
            }
            write_escape(c, out);
            at += c.len_utf8();
        }
    }
    out.push(b'"');
}

fn is_printable_ascii(b: u8) -> bool {
    (b' '..=b'~').contains(&b)
}

fn is_no_control(b: u8) -> bool {
    b >= b' '
}

/// How many bytes from the start are allowed and need no backslash. Without branches, so that a
/// compiler makes SIMD of it.
#[expect(clippy::needless_bitwise_bool, reason = "`||` would be a branch")]
fn clean_prefix(bytes: &[u8], is_allowed: impl Fn(u8) -> bool) -> usize {
    const STEP: usize = 16;
    let special = |b: &u8| !is_allowed(*b) | (*b == b'"') | (*b == b'\\');
    let clean_steps = bytes
        .chunks_exact(STEP)
        .take_while(|chunk| !chunk.iter().fold(false, |any, b| any | special(b)))
        .count();
    let start = clean_steps * STEP;
    start
        + bytes[start..]
            .iter()
            .position(special)
            .unwrap_or(bytes.len() - start)
}

fn write_escape(c: char, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let digit = |shift: u16| HEX[usize::from((*unit >> shift) & 0xf)];
                out.extend_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(value: f64, spelling: Spelling) -> String {
        let mut out = Vec::new();
        write_float(value, spelling, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn string(text: &str, spelling: Spelling) -> String {
        let mut out = Vec::new();
        write_string(text, spelling, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_are_laid_out_as_pythons_repr_or_as_orjsons() {
        for (value, repr, compact) in [
            (0.0, "0.0", "0.0"),
            (-0.0, "-0.0", "-0.0"),
            (1.0, "1.0", "1.0"),
            (-1.5, "-1.5", "-1.5"),
            (0.1, "0.1", "0.1"),
            (0.0001, "0.0001", "0.0001"),
            (0.000_099_9, "9.99e-05", "0.0000999"),
            (-0.00001, "-1e-05", "-0.00001"),
            (0.000_123_45, "0.00012345", "0.00012345"),
            (123_456.0, "123456.0", "123456.0"),
            (1e15, "1000000000000000.0", "1000000000000000.0"),
            (
                9_999_999_999_999_998.0,
                "9999999999999998.0",
                "9999999999999998.0",
            ),
            (1e16, "1e+16", "1e+16"),
            (-1.5e16, "-1.5e+16", "-1.5e+16"),
            (1e22, "1e+22", "1e+22"),
            (1e100, "1e+100", "1e+100"),
            (1e-7, "1e-07", "1e-7"),
            (5e-324, "5e-324", "5e-324"),
            (
                f64::MAX,
                "1.7976931348623157e+308",
                "1.7976931348623157e+308",
            ),
            (f64::NAN, "null", "null"),
            (f64::INFINITY, "null", "null"),
        ] {
            assert_eq!(float(value, Spelling::Fastapi), repr);
            assert_eq!(float(value, Spelling::Compact), compact);
        }
    }

    #[test]
    fn strings_are_escaped_to_printable_ascii_or_as_little_as_possible() {
        for (text, ascii, compact) in [
            ("", r#""""#, r#""""#),
            ("tok", r#""tok""#, r#""tok""#),
            ("\"\\/", r#""\"\\/""#, r#""\"\\/""#),
            ("\u{8}\t\n\u{c}\r", r#""\b\t\n\f\r""#, r#""\b\t\n\f\r""#),
            (
                "\0\u{1f}\u{7f}",
                r#""\u0000\u001f\u007f""#,
                "\"\\u0000\\u001f\u{7f}\"",
            ),
            ("é中\u{2028}", r#""\u00e9\u4e2d\u2028""#, "\"é中\u{2028}\""),
            ("😀", r#""\ud83d\ude00""#, "\"😀\""),
            (
                "0123456789abcdef\n0123456789abcdefg",
                r#""0123456789abcdef\n0123456789abcdefg""#,
                r#""0123456789abcdef\n0123456789abcdefg""#,
            ),
        ] {
            assert_eq!(string(text, Spelling::Fastapi), ascii);
            assert_eq!(string(text, Spelling::Compact), compact);
        }
    }

    #[test]
    fn the_clean_prefix_ends_at_the_first_escape() {
        for len in 0..70 {
            let clean = vec![b'x'; len];
            assert_eq!(clean_prefix(&clean, is_no_control), len);
            for at in 0..len {
                for special in [b'"', b'\\', 0x1f, 0x7f, 0xc3] {
                    let mut bytes = clean.clone();
                    bytes[at] = special;
                    assert_eq!(clean_prefix(&bytes, is_printable_ascii), at);
                    let compact = if special > b'~' { len } else { at };
                    assert_eq!(clean_prefix(&bytes, is_no_control), compact);
                }
            }
        }
    }
}
