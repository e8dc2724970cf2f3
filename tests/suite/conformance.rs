//! The trait `larder::client::Cache`, once: what it promises holds of the client of a real node, of the short-lived one, of the
//! one with a near cache, of the cache in this process, and of the cache that injects faults while it injects none.

mod cases;

use larder::client::faults::FaultyCache;
use larder::client::{Cache, Client, ClientBuilder};
use larder::local::LocalCache;

use crate::support::node::*;

/// The client of a node of its own, whose calls name this namespace, and the node.
async fn client_of(
    namespace: &str,
    configure: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> (impl Cache, Node) {
    let node = Node::start().await;
    let builder = configure(Client::builder([node.data().parse().unwrap()])).timeout(LONG);
    (soon(builder.connect()).await.unwrap().with_namespace(namespace), node)
}

async fn client(namespace: &str) -> (impl Cache, Node) {
    client_of(namespace, |builder| builder).await
}

async fn short_lived(namespace: &str) -> (impl Cache, Node) {
    client_of(namespace, ClientBuilder::short_lived).await
}

async fn near_cached(namespace: &str) -> (impl Cache, Node) {
    client_of(namespace, |builder| builder.near_cache(4 << 20)).await
}

async fn local(namespace: &str) -> (impl Cache, ()) {
    (LocalCache::builder().build().with_namespace(namespace), ())
}

async fn faulty_without_faults(namespace: &str) -> (impl Cache, ()) {
    (FaultyCache::new(local(namespace).await.0), ())
}

macro_rules! suite {
    ($($case:ident)*) => {
        suite!(@of client $($case)*);
        suite!(@of short_lived $($case)*);
        suite!(@of near_cached $($case)*);
        suite!(@of local $($case)*);
        suite!(@of faulty_without_faults $($case)*);
    };
    (@of $cache:ident $($case:ident)*) => {
        mod $cache {
            $(#[tokio::test]
            async fn $case() {
                let (cache, _node) = super::$cache("").await;
                super::soon(super::cases::$case(&cache)).await;
            })*

            #[tokio::test]
            async fn a_namespace_that_is_not_there_is_refused() {
                let (cache, _node) = super::$cache("nowhere").await;
                super::soon(super::cases::a_namespace_that_is_not_there_is_refused(&cache)).await;
            }
        }
    };
}

suite! {
    a_lookup_tells_the_entry_or_why_there_is_none
    flags_and_content_types_are_kept_until_they_are_replaced
    an_entry_ends_with_its_time_to_live_and_a_touch_prolongs_it
    an_expiration_may_be_a_moment_or_the_one_before
    a_condition_that_is_not_met_stores_nothing_and_tells_the_version
    a_delete_says_whether_there_was_an_entry_and_heeds_a_version
    versions_grow_with_every_change_of_a_value
    counters_are_decimal_integers_and_begin_where_they_are_told_to
    what_is_no_integer_or_leaves_its_range_is_refused_and_stays
    a_count_with_a_request_id_counts_once
    a_batch_has_a_result_for_each_item_in_order
    a_bad_item_of_a_batch_is_refused_and_the_others_are_done
    a_scan_finds_each_entry_of_its_prefix_once
    an_invalidation_drops_a_prefix_a_tag_or_everything
    what_is_over_a_limit_is_refused_with_code_reason_field_and_limit
    clones_share_the_cache_and_tasks_use_it_at_once
}
