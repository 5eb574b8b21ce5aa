//! The JSON of a float. Does not depend on Python.

use super::style::Spelling;
use crate::output::Output;

/// Write the shortest digits that give the same float, or `null` for an infinity or NaN, which JSON
/// cannot express.
pub fn write_float(value: f64, spelling: Spelling, out: &mut Output) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(value);
    if spelling == Spelling::Fastapi && value != 0.0 && value.abs() < 1e-4 {
        write_small(shortest, out);
    } else {
        out.extend_from_slice(shortest.as_bytes());
    }
}

/// Write a float that is nearer to zero than 1e-4. Only these look different in Python: it writes
/// `1e-05` for `0.00001` and `1e-07` for `1e-7`.
#[cold]
fn write_small(shortest: &str, out: &mut Output) {
    let (sign, digits) = match shortest.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", shortest),
    };
    out.extend_from_slice(sign.as_bytes());
    if let Some((first, rest)) = digits
        .strip_prefix("0.0000")
        .and_then(|d| d.split_at_checked(1))
    {
        out.extend_from_slice(first.as_bytes());
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest.as_bytes());
        }
        out.extend_from_slice(b"e-05");
        return;
    }
    match digits.split_once("e-") {
        Some((mantissa, exponent)) if exponent.len() == 1 => {
            out.extend_from_slice(mantissa.as_bytes());
            out.extend_from_slice(b"e-0");
            out.extend_from_slice(exponent.as_bytes());
        }
        _ => out.extend_from_slice(digits.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(value: f64, spelling: Spelling) -> String {
        let mut out = Output::default();
        write_float(value, spelling, &mut out);
        String::from_utf8(out.into()).unwrap()
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
            (0.000_012_5, "1.25e-05", "0.0000125"),
            (-1.25e-6, "-1.25e-06", "-1.25e-6"),
            (9.9e-9, "9.9e-09", "9.9e-9"),
            (1e-10, "1e-10", "1e-10"),
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
}
