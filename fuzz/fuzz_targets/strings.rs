//! JSON strings in both spellings, after any other bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::fmt::Write;
use subject::output::Output;

/// Encode a string as `json.dumps` does, one character at a time.
fn ascii(text: &str) -> String {
    let mut json = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            ' '..='~' => json.push(c),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(json, "\\u{unit:04x}").unwrap();
                }
            }
        }
    }
    json.push('"');
    json
}

fuzz_target!(|input: (&[u8], &str)| {
    let (before, text) = input;
    for (compact, expected) in [
        (false, ascii(text)),
        (true, serde_json::to_string(text).unwrap()),
    ] {
        let mut out = Output::from(before.to_vec());
        subject::string(text, compact, &mut out);
        assert_eq!(&out[..before.len()], before);
        let json = str::from_utf8(&out[before.len()..]).unwrap();
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<String>(json).unwrap(), text);
    }
});
