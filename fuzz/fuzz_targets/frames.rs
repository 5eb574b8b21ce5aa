//! Frames with any fields, between two other events. A client reads exactly what was written, and a
//! value that a field refuses writes nothing.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use subject::output::Output;
use subject::text::DataLines;
use subject::wire::{FrameWriter, check_frames};
use subject::{lines, read};

#[derive(Arbitrary, Debug)]
struct Fields<'a> {
    comment: Option<&'a str>,
    event: Option<&'a str>,
    data: Option<&'a str>,
    id: Option<&'a str>,
    retry: Option<&'a str>,
}

const BEFORE: &str = "data: before\nid: 0\n\n";
const AFTER: &str = "data: after\n\n";

fuzz_target!(|fields: Fields<'_>| {
    let mut out = Output::from(BEFORE.as_bytes().to_vec());
    let mut expected = read(BEFORE);
    let mut frame = FrameWriter::new(&mut out);
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
        let (mut as_data, mut as_json) = (Output::default(), Output::default());
        FrameWriter::new(&mut as_data).data(data.as_bytes());
        FrameWriter::new(&mut as_json).json(data.as_bytes());
        assert_eq!(as_json[..], as_data[..]);
        let mut as_large = Vec::new();
        let lines = DataLines::of(data.as_bytes());
        lines.write(&mut as_large).unwrap();
        assert_eq!(as_large, as_data[..]);
        assert_eq!(as_large.len(), lines.size());
    }
    if let Some(id) = fields.id {
        let is_id = !id.contains(['\r', '\n', '\0']);
        assert_eq!(frame.id(id).is_ok(), is_id);
        if is_id {
            last_id = id;
        }
    }
    if let Some(digits) = fields.retry {
        let is_digits = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        assert_eq!(frame.retry(digits).is_ok(), is_digits);
        if is_digits {
            expected.retry = Some(digits.to_owned());
        }
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
