//! Events that are published together, or in parts: a client gets the same, each with its position.
#![no_main]

use libfuzzer_sys::fuzz_target;
use subject::split::{HasId, check_no_id, events};
use subject::{lines, read};

const BEFORE: &str = "data: before\n\n";

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fuzz_target!(|input: (&str, usize)| {
    let (frames, cut) = input;
    let split = events(frames.as_bytes());

    let mut complete = lines(frames);
    complete.pop();
    let has_id = complete
        .iter()
        .any(|line| line == "id" || line.starts_with("id:"));
    assert_eq!(split.is_err(), has_id);
    assert_eq!(check_no_id(frames.as_bytes()).is_err(), has_id);
    let Ok((found, rest)) = split else {
        return assert_eq!(split, Err(HasId));
    };

    // Each event ends with its only blank line, and nothing but blank lines was left out.
    for event in &found {
        let mut its_lines = lines(text(event));
        assert_eq!(its_lines.pop().as_deref(), Some(""));
        assert_eq!(its_lines.pop().as_deref(), Some(""));
        assert!(!its_lines.is_empty() && its_lines.iter().all(|line| !line.is_empty()));
    }
    let whole = read(&format!("{BEFORE}{frames}"));
    let joined = format!("{}{}", text(&found.concat()), text(rest));
    assert_eq!(read(&format!("{BEFORE}{joined}")), whole);

    // With a position in front of each, a client knows at each event where it is.
    let mut sent = BEFORE.to_owned();
    let mut expected = Vec::new();
    for (offset, event) in found.iter().enumerate() {
        sent.push_str(&format!("id: a.{offset}\n{}", text(event)));
        if read(&format!("{BEFORE}{}", text(event))).events.len() > 1 {
            expected.push(format!("a.{offset}"));
        }
    }
    let client = read(&sent);
    let ids: Vec<_> = client.events[1..].iter().map(|(_, _, id)| id).collect();
    assert_eq!(ids, expected.iter().collect::<Vec<_>>());

    // In two parts, they are the same events.
    let bytes = frames.as_bytes();
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    let (mut in_parts, left) = events(first).unwrap();
    let continued = [left, second].concat();
    let (more, rest_in_parts) = events(&continued).unwrap();
    in_parts.extend(more);
    assert_eq!(in_parts.len(), found.len());
    assert_eq!(rest_in_parts, rest);
    let sent = format!("{BEFORE}{}", String::from_utf8_lossy(&in_parts.concat()));
    assert_eq!(
        read(&sent),
        read(&format!("{BEFORE}{}", text(&found.concat())))
    );
});
