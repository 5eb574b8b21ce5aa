//! Server-Sent Events with axum, to measure the cost of an event without Python.
//!
//! The argument is a file with a JSON text in each line. The program prints its port and
//! exits when its standard input is closed.

use std::{convert::Infallible, error::Error, sync::Arc, time::Duration};

use axum::extract::{Path, State};
use axum::response::sse::{Event, Sse};
use axum::{Router, routing::get};
use futures_util::stream::{Stream, unfold};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

const PACE: Duration = Duration::from_millis(20);

#[derive(Deserialize, Serialize)]
struct Delta {
    role: String,
    content: String,
}

#[derive(Deserialize, Serialize)]
struct Choice {
    index: u32,
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Chunk {
    id: String,
    object: String,
    created: u64,
    model: String,
    choices: Vec<Choice>,
}

type Chunks = Arc<Vec<Chunk>>;
type Item = Result<Event, Infallible>;

fn event(chunks: &Chunks, index: usize) -> Item {
    let chunk = &chunks[index % chunks.len()];
    Ok(Event::default().json_data(chunk).expect("a chunk is JSON"))
}

async fn paced(State(chunks): State<Chunks>) -> Sse<impl Stream<Item = Item>> {
    Sse::new(unfold(0, move |index| {
        let chunks = chunks.clone();
        async move {
            if index > 0 {
                tokio::time::sleep(PACE).await;
            }
            Some((event(&chunks, index), index + 1))
        }
    }))
}

async fn awaiting(
    State(chunks): State<Chunks>,
    Path(laps): Path<usize>,
) -> Sse<impl Stream<Item = Item>> {
    let count = laps * chunks.len();
    Sse::new(unfold(0, move |index| {
        let chunks = chunks.clone();
        async move {
            if index > 0 {
                tokio::task::yield_now().await; // The other streams run now.
            }
            (index < count).then(|| (event(&chunks, index), index + 1))
        }
    }))
}

fn samples(path: &str) -> Result<Vec<Chunk>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which samples?")?;
    let chunks = Arc::new(samples(&path)?);
    // There is one thread, because all contestants have one core.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let app = Router::new()
            .route("/paced", get(paced))
            .route("/awaiting/{laps}", get(awaiting))
            .with_state(chunks);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        tokio::spawn(async {
            let mut rest = Vec::new();
            let _ = tokio::io::stdin().read_to_end(&mut rest).await;
            std::process::exit(0);
        });
        axum::serve(listener, app).await?;
        Ok(())
    })
}
