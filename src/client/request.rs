//! The table of requests: the verb of each message that the library sends, what answers it, and the key by which the node
//! is chosen that it goes to.

use prost::Message;

use crate::proto::v1::*;
use crate::verb::Verb;

/// A message that asks for something.
pub(super) trait Request: Message + Clone + 'static {
    /// What it asks for.
    const VERB: Verb;
    /// What answers it: once, or as often as the verb's stream has it.
    type Answer: Message + Default + 'static;

    /// A key that it names, whose owner is the one to ask; of several the first, as all are one owner's. `None`: it
    /// names none.
    fn key(&self) -> Option<&[u8]>;

    /// Whether it is to be done once, though its verb may be repeated: with a condition, which the first time has changed.
    fn is_conditional(&self) -> bool;
}

macro_rules! requests {
    ($($request:ident: $verb:ident -> $answer:ident $(by $key:expr)? $(, conditional if $condition:expr)?;)*) => {
        $(impl Request for $request {
            const VERB: Verb = Verb::$verb;
            type Answer = $answer;

            fn key(&self) -> Option<&[u8]> {
                let key: fn(&Self) -> Option<&[u8]> = requests!(@key $($key)?);
                key(self)
            }

            fn is_conditional(&self) -> bool {
                let is_conditional: fn(&Self) -> bool = requests!(@condition $($condition)?);
                is_conditional(self)
            }
        })*

        /// The table's rows, for its tests.
        #[cfg(test)]
        mod rows {
            use crate::verb::Verb;

            pub(super) const ROWS: &[(Verb, &str, &str)] =
                &[$((Verb::$verb, stringify!($request), stringify!($answer)),)*];
        }
    };
    (@key) => { |_| None };
    (@key $key:expr) => { $key };
    (@condition) => { |_| false };
    (@condition $condition:expr) => { $condition };
}

requests! {
    GetRequest: Get -> GetResponse by |get| Some(&get.key);
    SetRequest: Set -> SetResponse by |set| Some(&set.key), conditional if |set| set.condition.is_some();
    DeleteRequest: Delete -> DeleteResponse by |delete| Some(&delete.key), conditional if |delete| delete.if_version.is_some();
    IncrementRequest: Increment -> IncrementResponse by |increment| Some(&increment.key);
    DecrementRequest: Decrement -> DecrementResponse by |decrement| Some(&decrement.key);
    TouchRequest: Touch -> TouchResponse by |touch| Some(&touch.key);
    BatchGetRequest: BatchGet -> BatchGetResponse by |batch| batch.keys.first().map(|key| &key[..]);
    BatchSetRequest: BatchSet -> BatchSetResponse by |batch| batch.items.first().map(|item| &item.key[..]),
        conditional if |batch| batch.items.iter().any(Request::is_conditional);
    BatchDeleteRequest: BatchDelete -> BatchDeleteResponse by |batch| batch.keys.first().map(|key| &key[..]);
    GetBlobRequest: GetBlob -> GetBlobResponse by |blob| Some(&blob.key);
    DeleteBlobRequest: DeleteBlob -> DeleteBlobResponse by |blob| Some(&blob.key);
    ListBlobsRequest: ListBlobs -> ListBlobsResponse;
    ScanRequest: Scan -> ScanResponse;
    InvalidateRequest: Invalidate -> InvalidateResponse;
    WatchRequest: Watch -> WatchResponse;
    SpawnRequest: Spawn -> SpawnResponse;
    DrainRequest: Drain -> DrainResponse;
    GetStatsRequest: GetStats -> GetStatsResponse;
    StreamStatsRequest: StreamStats -> GetStatsResponse;
    ResetStatsRequest: ResetStats -> ResetStatsResponse;
    SetEvictionPolicyRequest: SetEvictionPolicy -> SetEvictionPolicyResponse;
    ResizeRequest: Resize -> ResizeResponse;
    CreateNamespaceRequest: CreateNamespace -> CreateNamespaceResponse;
    UpdateNamespaceRequest: UpdateNamespace -> UpdateNamespaceResponse;
    ListNamespacesRequest: ListNamespaces -> ListNamespacesResponse;
    DeleteNamespaceRequest: DeleteNamespace -> DeleteNamespaceResponse;
    ClearRequest: Clear -> ClearResponse;
    FlushRequest: Flush -> FlushResponse;
    CreateSnapshotRequest: CreateSnapshot -> CreateSnapshotResponse;
    ListSnapshotsRequest: ListSnapshots -> ListSnapshotsResponse;
    VerifyRecoveryRequest: VerifyRecovery -> VerifyRecoveryResponse;
    CompactJournalRequest: CompactJournal -> CompactJournalResponse;
    GetConfigRequest: GetConfig -> GetConfigResponse;
    UpdateConfigRequest: UpdateConfig -> UpdateConfigResponse;
    ListHotKeysRequest: ListHotKeys -> ListHotKeysResponse;
    ListSlowOpsRequest: ListSlowOps -> ListSlowOpsResponse;
    GetMemoryReportRequest: GetMemoryReport -> GetMemoryReportResponse;
    ExplainKeyRequest: ExplainKey -> ExplainKeyResponse;
    GetRingRequest: GetRing -> GetRingResponse;
    WatchRingRequest: WatchRing -> WatchRingResponse;
}

#[cfg(test)]
mod tests {
    use prost_types::FileDescriptorSet;

    use super::rows::ROWS;
    use super::*;
    use crate::verb::Keys;

    #[test]
    fn the_table_has_each_verb_with_the_contracts_messages() {
        let set = FileDescriptorSet::decode(crate::proto::FILE_DESCRIPTOR_SET).unwrap();
        let methods: Vec<_> =
            set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method).collect();
        for (verb, request, answer) in ROWS {
            let method = methods.iter().find(|method| method.name() == verb.name()).unwrap();
            let messages = [method.input_type(), method.output_type()];
            let expected = [request, answer].map(|name| format!(".larder.v1.{name}"));
            assert_eq!(messages, expected, "{}", verb.name());
        }
        let mut verbs: Vec<Verb> = ROWS.iter().map(|(verb, ..)| *verb).collect();
        verbs.sort_by_key(|verb| *verb as u8);
        verbs.dedup();
        assert_eq!(verbs.len(), ROWS.len(), "a verb stands twice");
    }

    #[test]
    fn a_data_request_that_names_keys_is_routed_by_one() {
        let (k, none) = (|| bytes::Bytes::from("k"), None::<&[u8]>);
        let keyed = GetRequest { key: k(), ..Default::default() };
        assert_eq!((keyed.key(), Verb::Get.keys()), (Some(&b"k"[..]), Keys::One));
        let batch = BatchGetRequest { keys: vec![k(), "l".into()], ..Default::default() };
        assert_eq!((batch.key(), Verb::BatchGet.keys()), (Some(&b"k"[..]), Keys::Many));
        let item = SetRequest { key: k(), ..Default::default() };
        assert_eq!(BatchSetRequest { items: vec![item], ..Default::default() }.key(), Some(&b"k"[..]));
        assert_eq!((BatchGetRequest::default().key(), ScanRequest::default().key()), (none, none));
        assert_eq!(Verb::Scan.keys(), Keys::None);
    }

    #[test]
    fn what_has_a_condition_is_done_once() {
        let set =
            SetRequest { condition: Some(set_request::Condition::IfAbsent(true)), ..Default::default() };
        assert!(set.is_conditional() && !SetRequest::default().is_conditional());
        let batch = |items| BatchSetRequest { items, ..Default::default() };
        assert!(!batch(vec![SetRequest::default()]).is_conditional());
        assert!(batch(vec![SetRequest::default(), set]).is_conditional());
        let delete = DeleteRequest { if_version: Some(7), ..Default::default() };
        assert!(delete.is_conditional() && !DeleteRequest::default().is_conditional());
    }
}
