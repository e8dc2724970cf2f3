//! Images: stored as blobs with their media type, and streamed to browsers, a few chunks in memory however large they are.
//!
//! An upload is written to the node as it comes; one that breaks off stores nothing. A download is the body of an HTTP response,
//! with the blob's length and media type for headers.
//!
//! ```text
//! cargo run --example images                                 (starts a node of its own)
//! cargo run --example images -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

#[path = "support/http.rs"]
mod http;
#[path = "support/node.rs"]
mod node;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use larder::Client;
use larder::client::{BlobOptions, BlobRange};
use node::Failure;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Blobs are kept on disk, and nowhere else.
    let directory = tempfile::tempdir()?;
    let data_dir = directory.path().to_str().ok_or("the directory's name is no UTF-8")?;
    let (url, _node) = node::url(&[("data-dir", data_dir)]).await?;
    let client = Client::builder([url.parse()?]).connect().await?;

    // An upload. `tokio::io::copy` from a file or a socket is the same.
    let options = BlobOptions { content_type: "image/bmp".to_owned(), ..Default::default() };
    let mut writer = client.blob_writer("images/sky.bmp", &options);
    for line in bitmap(1_024, 1_024) {
        writer.write_all(&line).await?;
    }
    let stored = writer.finish().await?;
    println!("stored {} B as version {}", stored.size_bytes, stored.version);

    // One that breaks off: the image before it stays.
    let mut broken = client.blob_writer("images/sky.bmp", &options);
    broken.write_all(b"BM").await?;
    drop(broken);

    let router = Router::new().route("/images/{name}", get(image)).with_state(client.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let (head, body) = http::get(address, "/images/sky.bmp").await?;
    let facts = head.lines().filter(|line| line.starts_with("content-"));
    println!("served {} B: {}", body.len(), facts.collect::<Vec<_>>().join(", "));
    let (missing, _) = http::get(address, "/images/sea.bmp").await?;
    println!("one that is not there: {}", missing.lines().next().unwrap_or_default());
    server.abort();
    client.delete_blob("images/sky.bmp").await?;
    if body.len() as u64 == stored.size_bytes { Ok(()) } else { Err("the image was not served whole".into()) }
}

/// Streams an image.
async fn image(State(client): State<Client>, Path(name): Path<String>) -> Response {
    match client.get_blob(format!("images/{name}"), BlobRange::default()).await {
        Ok(Some(download)) => {
            let info = download.info();
            let headers = [
                (header::CONTENT_TYPE, info.content_type.clone()),
                (header::CONTENT_LENGTH, info.size_bytes.to_string()),
            ];
            (headers, Body::from_stream(download.into_stream())).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// A picture of a sky, line by line: the head of a BMP file, then 24 bits a pixel.
fn bitmap(width: u32, height: u32) -> impl Iterator<Item = Vec<u8>> {
    let pixels = width * height * 3;
    let mut head = b"BM".to_vec();
    for number in [54 + pixels, 0, 54, 40, width, height, 1 | 24 << 16, 0, pixels, 2_835, 2_835, 0, 0] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    let line = move |line: u32| [255, (line * 255 / height) as u8, 64].repeat(width as usize);
    std::iter::once(head).chain((0..height).map(line))
}
