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

mod support;

use larder::Client;
use larder::client::{GetOutcome, InvalidateScope, SetOptions};
use support::{Failure, connect};

/// Pages, and the products on them.
const PAGES: [(&str, &[&str]); 3] = [
    ("page:/", &["product:tea", "product:jam"]),
    ("page:/breakfast", &["product:jam", "product:bread"]),
    ("page:/drinks", &["product:tea"]),
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (client, _node) = connect().await?;
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
