//! Frames of any fields: a client between two other events reads what was written and nothing
//! else, and what a field refuses leaves no trace.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use subject::wire::{Frame, check_frames};
use subject::{lines, read};

#[derive(Arbitrary, Debug)]
struct Fields<'a> {
    comment: Option<&'a str>,
    event: Option<&'a str>,
    data: Option<&'a str>,
    id: Option<&'a str>,
    retry: Option<Retry<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Retry<'a> {
    Number(u64),
    Digits(&'a str),
}

const BEFORE: &str = "data: before\nid: 0\n\n";
const AFTER: &str = "data: after\n\n";

fuzz_target!(|fields: Fields<'_>| {
    let mut out = BEFORE.as_bytes().to_vec();
    let mut expected = read(BEFORE);
    let mut frame = Frame::new(&mut out);
    let mut kind = "message";
    let mut last_id = "0";

    if let Some(comment) = fields.comment {
        frame.comment(comment);
        expected.comments = lines(comment);
    }
    if let Some(event) = fields.event {
        let is_line = !event.contains(['\r', '\n']);
        assert_eq!(frame.event(event).is_ok(), is_line);
        if is_line && !event.is_empty() {
            kind = event;
        }
    }
    if let Some(data) = fields.data {
        frame.data(data.as_bytes());
        let (mut as_data, mut as_json) = (Vec::new(), Vec::new());
        Frame::new(&mut as_data).data(data.as_bytes());
        Frame::new(&mut as_json).json(data.as_bytes());
        assert_eq!(as_json, as_data);
    }
    if let Some(id) = fields.id {
        let is_id = !id.contains(['\r', '\n', '\0']);
        assert_eq!(frame.id(id).is_ok(), is_id);
        if is_id {
            last_id = id;
        }
    }
    match fields.retry {
        Some(Retry::Number(number)) => {
            frame.retry(number);
            expected.retry = Some(number.to_string());
        }
        Some(Retry::Digits(digits)) => {
            let is_digits = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
            assert_eq!(frame.retry_digits(digits).is_ok(), is_digits);
            if is_digits {
                expected.retry = Some(digits.to_owned());
            }
        }
        None => {}
    }
    frame.end();
    check_frames(&out[BEFORE.len()..]).unwrap();

    out.extend_from_slice(AFTER.as_bytes());
    if let Some(data) = fields.data {
        let data = lines(data).join("\n");
        let event = (kind.to_owned(), data, last_id.to_owned());
        expected.events.push(event);
    }
    let after = ("message".to_owned(), "after".to_owned(), last_id.to_owned());
    expected.events.push(after);
    assert_eq!(read(str::from_utf8(&out).unwrap()), expected);
});
