//! What clients send as `Last-Event-ID`: a position has one spelling, and nothing else is one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use subject::position::Position;

/// Parse a position one character at a time.
fn parse(text: &str) -> Option<(&str, u64)> {
    let (epoch, digits) = text.split_once('.')?;
    let is_epoch = !epoch.is_empty()
        && epoch.chars().count() <= 32
        && epoch
            .chars()
            .all(|c| matches!(c, '0'..='9' | 'a'..='z' | 'A'..='Z'));
    if !is_epoch || digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    let mut offset: u64 = 0;
    for c in digits.chars() {
        let digit = c.is_ascii().then(|| c.to_digit(10)).flatten()?;
        offset = offset.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some((epoch, offset))
}

fuzz_target!(|text: &str| {
    let expected: Option<Vec<_>> = text.split('~').map(parse).collect();
    let parsed = Position::parse_all(text);
    let found: Option<Vec<_>> = parsed
        .as_ref()
        .map(|positions| positions.iter().map(|it| (it.epoch, it.offset)).collect());
    assert_eq!(found, expected);
    if let Some(positions) = parsed {
        let spelled: Vec<_> = positions
            .iter()
            .map(|it| format!("{}.{}", it.epoch, it.offset))
            .collect();
        assert_eq!(spelled.join("~"), text);
    }
});
