//! JSON numbers in both spellings have the digits of Rust's own formatting.
#![no_main]

use libfuzzer_sys::fuzz_target;
use subject::output::Output;

/// Return the shortest digits that give the same float. If two are equally close, Rust takes the
/// larger one, and Python the one whose last digit is even.
fn shortest(value: f64) -> String {
    let shortest = format!("{value:e}");
    let mantissa = shortest.split('e').next().unwrap();
    let nearest = format!("{value:.*e}", mantissa.len().saturating_sub(2));
    if nearest.parse() == Ok(value) {
        nearest
    } else {
        shortest
    }
}

/// Return the text of a float. An exponent outside of `fixed` is written.
fn expected(value: f64, fixed: std::ops::Range<i32>, exponent_width: usize) -> String {
    if !value.is_finite() {
        return "null".to_owned();
    }
    let shortest = shortest(value.abs());
    let (mantissa, exponent) = shortest.split_once('e').unwrap();
    let exponent: i32 = exponent.parse().unwrap();
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if !fixed.contains(&exponent) {
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        let exponent = exponent.abs();
        return format!("{sign}{mantissa}e{exponent_sign}{exponent:0exponent_width$}");
    }
    let digits = mantissa.replace('.', "");
    let Ok(exponent) = usize::try_from(exponent) else {
        let zeros = "0".repeat(usize::try_from(-exponent).unwrap() - 1);
        return format!("{sign}0.{zeros}{digits}");
    };
    let padded = format!("{digits:0<width$}", width = exponent + 2);
    let (whole, fraction) = padded.split_at(exponent + 1);
    format!("{sign}{whole}.{fraction}")
}

fuzz_target!(|bits: u64| {
    let value = f64::from_bits(bits);
    for (compact, expected) in [
        (false, expected(value, -4..16, 2)),
        (true, expected(value, -5..16, 1)),
    ] {
        let mut out = Output::default();
        subject::float(value, compact, &mut out);
        let json = str::from_utf8(&out).unwrap();
        assert_eq!(json, expected);
        if value.is_finite() {
            assert_eq!(json.parse::<f64>().unwrap().to_bits(), bits);
        }
    }
});
