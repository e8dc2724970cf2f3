//! Tags: pages that are dropped together when what they show has changed.
//!
//! A rendered page shows several products, and a product is on several pages. Each page is stored with a tag for every
//! product on it; when a price changes, one Invalidate drops all pages that show it, in constant time however many
//! they are, and leaves the others.
//!
//! ```text
//! cargo run --example tags                                 (starts a node of its own)
//! cargo run --example tags -- --nodes tcp://127.0.0.1:7400 (uses yours)
//! ```

use std::error::Error;

use larder::client::{GetOutcome, InvalidateScope, SetOptions};
use larder::config::ServeArgs;
use larder::{Client, RunningNode, ServeConfig};

type Failure = Box<dyn Error + Send + Sync>;

/// Pages, and the products on them.
const PAGES: [(&str, &[&str]); 3] = [
    ("page:/", &["product:tea", "product:jam"]),
    ("page:/breakfast", &["product:jam", "product:bread"]),
    ("page:/drinks", &["product:tea"]),
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (url, _node) = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--nodes"), Some(url)) => (url, None),
        _ => {
            let node = start_node().await?;
            (node.node().data_addresses()[0].to_string(), Some(node))
        }
    };
    let client = Client::builder([url.parse()?]).build()?;
    for (page, products) in PAGES {
        let options = SetOptions {
            content_type: "text/html".to_owned(),
            tags: products.iter().map(|product| (*product).to_owned()).collect(),
            ..Default::default()
        };
        client.set(page, format!("<p>{}</p>", products.join(", ")), &options).await?;
    }
    show(&client).await?;

    // The price of jam has changed.
    client.invalidate(InvalidateScope::Tag("product:jam".to_owned())).await?;
    let left = show(&client).await?;
    // Everything below a prefix goes as fast.
    client.invalidate(InvalidateScope::Prefix("page:".into())).await?;
    if left == ["page:/drinks"] && show(&client).await?.is_empty() {
        Ok(())
    } else {
        Err("wrong pages".into())
    }
}

/// Prints which pages are cached.
async fn show(client: &Client) -> Result<Vec<&'static str>, Failure> {
    let mut cached = Vec::new();
    for (page, _) in PAGES {
        if let GetOutcome::Hit(_) = client.get(page).await? {
            cached.push(page);
        }
    }
    println!("cached: {}", if cached.is_empty() { "nothing".to_owned() } else { cached.join(" ") });
    Ok(cached)
}

/// A node in this process, on free ports.
async fn start_node() -> Result<RunningNode, Failure> {
    let free = || "tcp://127.0.0.1:0".to_owned();
    let args = ServeArgs {
        listen: vec![free()],
        admin: Some(free()),
        health: Some(free()),
        http: Some("127.0.0.1:0".to_owned()),
        memory: Some("64MiB".to_owned()),
        ..ServeArgs::default()
    };
    Ok(RunningNode::start(ServeConfig::load(&args, &|_| None)?).await?)
}
