//! Build script.
//!
//! It sets the `cfg`s of the Python that the crate is built for, such as `Py_GIL_DISABLED`. It also
//! extracts the docstrings of the type stub, so that `help()` shows the same text as an editor.

use std::path::Path;
use std::{env, fs, io};

const STUB: &str = "python/fastapi_sse_fast/_core.pyi";

fn main() -> io::Result<()> {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={STUB}");
    let folder = env::var_os("OUT_DIR").unwrap_or_default();
    for (name, text) in docstrings(&fs::read_to_string(STUB)?) {
        fs::write(Path::new(&folder).join(name + ".txt"), text)?;
    }
    Ok(())
}

/// Return the qualified name and the docstring of each class, function and method.
fn docstrings(stub: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut class = String::new();
    let mut name = None;
    let mut lines = stub.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if let Some(definition) = code.strip_prefix("class ") {
            class = identifier(definition);
            name = Some(class.clone());
        } else if let Some(definition) = code.strip_prefix("def ") {
            let function = identifier(definition);
            name = Some(if indent == 0 {
                function
            } else {
                format!("{class}.{function}")
            });
        }
        if line.ends_with(": ...") {
            name = None;
        }
        let opened = code
            .strip_prefix('r')
            .unwrap_or(code)
            .strip_prefix("\"\"\"");
        let (Some(first), Some(documented)) = (opened, name.clone()) else {
            continue;
        };
        name = None;
        let mut text = first.to_owned();
        while !text.ends_with("\"\"\"") {
            let Some(line) = lines.next() else { break };
            text.push('\n');
            text.push_str(line.get(indent..).unwrap_or_default());
        }
        let text = text.trim_end_matches('"').trim_end();
        found.push((documented, text.to_owned()));
    }
    found
}

/// Return the name at the beginning of a definition.
fn identifier(definition: &str) -> String {
    let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
    definition.chars().take_while(is_part).collect()
}
