//! Admin's methods about what is on disk.

use std::sync::Arc;

use prost::Message;
use tonic::{Code, Response, Status};

use super::{AdminService, blocking};
use crate::cache::{
    BackendError, Cache, Damage, RecoveryMethod, Rehearsal, SnapshotError, SnapshotInfo, Stopped, Verified,
};
use crate::clock::{monotonic, since};
use crate::grpc::{Failure, STATUS_BYTES_MAX};
use crate::proto::v1;
use crate::request::CallError;
use crate::service::blobs;

/// Damages that are named.
const DAMAGES_MAX: usize = 1_000;

impl AdminService {
    pub(super) async fn flush_disk(&self) -> Result<Response<v1::FlushResponse>, Status> {
        self.needs_disk("Flush")?;
        if !self.cache.keeps_journal() {
            return Err(CallError::NoPersistence { what: "Admin.Flush".to_owned() }.into());
        }
        let position = self.cache.flushed().await.map_err(|why| stopped(&why))?;
        Ok(Response::new(v1::FlushResponse { position }))
    }

    pub(super) async fn take_snapshot(&self) -> Result<Response<v1::CreateSnapshotResponse>, Status> {
        let taken = self.on_disk("CreateSnapshot", Cache::take_snapshot).await?.map_err(failed)?;
        Ok(Response::new(v1::CreateSnapshotResponse {
            position: taken.position,
            entries: taken.entries,
            size_bytes: taken.bytes,
        }))
    }

    pub(super) fn snapshots(&self) -> Result<Response<v1::ListSnapshotsResponse>, Status> {
        self.needs_disk("ListSnapshots")?;
        let snapshots = self.cache.snapshots().iter().map(snapshot).collect();
        self.answer(v1::ListSnapshotsResponse { snapshots })
    }

    pub(super) async fn verify(
        &self,
        request: &v1::VerifyRecoveryRequest,
    ) -> Result<Response<v1::VerifyRecoveryResponse>, Status> {
        self.needs_disk("VerifyRecovery")?;
        let method = match request.method.as_str() {
            "" => None,
            word => Some(
                word.parse::<RecoveryMethod>()
                    .map_err(|error| CallError::Invalid { field: "method", why: error.to_string() })?,
            ),
        };
        let begun = monotonic();
        let rehearse = move |cache: &Cache| cache.rehearse_recovery(method);
        let found = self.on_disk("VerifyRecovery", rehearse).await?;
        let mut report = rehearsed(&found.map_err(disk_failed)?);
        add_blobs(&mut report, &self.verify_blobs().await?);
        report.elapsed_ms = since(begun).as_millis() as u64;
        if report.damages_total > 0 {
            return Err(data_loss(&report));
        }
        Ok(Response::new(report))
    }

    /// Reads all blobs, for as long as its caller waits.
    async fn verify_blobs(&self) -> Result<Verified, Status> {
        let (cache, caller) = (Arc::clone(&self.cache), Arc::new(()));
        let waiting = Arc::downgrade(&caller);
        let verified = blocking("verifying blobs", move || cache.verify_blobs(|| waiting.strong_count() > 0));
        let verified = verified.await?;
        drop(caller);
        verified.map_err(|error| blobs::refused(error, b"").into())
    }

    pub(super) async fn compact(&self) -> Result<Response<v1::CompactJournalResponse>, Status> {
        let compacted = self.on_disk("CompactJournal", Cache::compact_journal).await?.map_err(failed)?;
        Ok(Response::new(v1::CompactJournalResponse {
            first_position: compacted.first_position,
            reclaimed_bytes: compacted.reclaimed_bytes,
            disk_bytes: compacted.disk_bytes,
        }))
    }

    /// What GetStats tells of the disk; none where nothing is kept there.
    pub(super) async fn persistence_stats(&self) -> Option<v1::PersistenceStats> {
        let disk = self.cache.disk_state()?;
        let cache = Arc::clone(&self.cache);
        let disk_bytes = blocking("counting", move || cache.count_disk_bytes()).await;
        Some(v1::PersistenceStats {
            mode: self.node.config().config.map_or_else(String::new, |config| config.persistence),
            backend: disk.backend.to_owned(),
            position: disk.position,
            synced_position: disk.synced_position,
            poisoned: disk.poisoned.unwrap_or_default(),
            disk_bytes: disk_bytes.ok().and_then(Result::ok).unwrap_or(0),
            disk_limit_bytes: disk.limit_bytes.unwrap_or(0),
            snapshot_position: disk.newest_snapshot.map_or(0, |newest| newest.position),
            snapshot_unix_ms: disk.newest_snapshot.map_or(0, |newest| newest.time.unix_ms()),
            blobs: disk.blobs.blobs,
            blob_bytes: disk.blobs.bytes,
            entries: disk.entries,
            entries_damaged: disk.entries_damaged,
        })
    }

    /// Refuses what would part memory and disk.
    pub(super) fn check_disk(&self) -> Result<(), Status> {
        if self.cache.is_poisoned() { Err(CallError::JournalPoisoned.into()) } else { Ok(()) }
    }

    /// Refuses a method that needs what is on disk where nothing is.
    fn needs_disk(&self, method: &str) -> Result<(), CallError> {
        if self.cache.is_on_disk() {
            return Ok(());
        }
        let config = self.node.config().config;
        if config.is_some_and(|config| config.persistence != "none") {
            let what = format!(
                "Admin.{method} needs what is on disk, which is read when the node begins to serve (larder admin spawn)"
            );
            return Err(CallError::NotReady { state: self.node.state(), what });
        }
        Err(CallError::NoPersistence { what: format!("Admin.{method}") })
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        method: &'static str,
        work: impl FnOnce(&Cache) -> Option<T> + Send + 'static,
    ) -> Result<T, Status> {
        self.needs_disk(method)?;
        let cache = Arc::clone(&self.cache);
        blocking(method, move || work(&cache))
            .await?
            .ok_or_else(|| Status::internal("the data directory is gone"))
    }
}

fn failed(error: SnapshotError) -> CallError {
    match error {
        SnapshotError::Stopped(why) => stopped(&why),
        SnapshotError::Damaged(damage) => CallError::RecoveryDamaged {
            damages: 1,
            first: format!("{}: {}", damage.place, damage.description),
        },
        SnapshotError::NotWhole
        | SnapshotError::Clock(_)
        | SnapshotError::Newer(_)
        | SnapshotError::NoSnapshot { .. } => CallError::DiskFailed { why: error.to_string() },
        SnapshotError::Backend(error) => disk_failed(error),
    }
}

fn stopped(why: &Stopped) -> CallError {
    match why {
        Stopped::Poisoned(_) => CallError::JournalPoisoned,
        Stopped::Ended => CallError::Leaving { state: "stopped" },
    }
}

fn disk_failed(error: BackendError) -> CallError {
    let why = error.to_string();
    match error {
        error if error.is_full() => CallError::DiskFull { why },
        error if error.is_passing() => CallError::Shortage { why },
        _ => CallError::DiskFailed { why },
    }
}

fn snapshot(info: &SnapshotInfo) -> v1::Snapshot {
    v1::Snapshot {
        name: info.name(),
        first_position: info.first_position,
        position: info.position,
        created_unix_ms: info.time.unix_ms(),
        entries: info.entries,
        size_bytes: info.bytes,
        format: info.format.into(),
    }
}

fn rehearsed(found: &Rehearsal) -> v1::VerifyRecoveryResponse {
    let report = &found.report;
    v1::VerifyRecoveryResponse {
        method: report.method.to_string(),
        entries: found.entries,
        entry_bytes: found.entry_bytes,
        entries_expired: report.expired,
        snapshot: report.snapshot.map_or_else(String::new, |snapshot| snapshot.name()),
        first_position: report.first_position,
        position: report.position,
        torn_bytes: report.torn_bytes,
        damages: report.damages.iter().take(DAMAGES_MAX).map(damage).collect(),
        damages_total: report.damages.len() as u64,
        ..v1::VerifyRecoveryResponse::default()
    }
}

fn add_blobs(report: &mut v1::VerifyRecoveryResponse, found: &Verified) {
    (report.blobs, report.blob_bytes) = (found.blobs, found.bytes);
    report.damages_total += found.damaged;
    let named = found.damages.iter().map(|damage| v1::Damage {
        place: damage.place.clone(),
        offset: damage.offset,
        description: damage.what.to_owned(),
        ..v1::Damage::default()
    });
    let left = DAMAGES_MAX.saturating_sub(report.damages.len());
    report.damages.extend(named.take(left));
}

fn damage(damage: &Damage) -> v1::Damage {
    v1::Damage {
        place: damage.place.clone(),
        offset: damage.offset,
        position: damage.position,
        lost: damage.lost,
        description: damage.description.clone(),
    }
}

/// DATA_LOSS with the report in its details, with as many damages as find room there.
fn data_loss(report: &v1::VerifyRecoveryResponse) -> Status {
    let first = report.damages.first();
    let what = first.map_or_else(String::new, |damage| format!("{}: {}", damage.place, damage.description));
    let mut status =
        CallError::RecoveryDamaged { damages: report.damages_total, first: what }.to_rpc_status();
    let mut told = v1::VerifyRecoveryResponse { damages: Vec::new(), ..report.clone() };
    let room = STATUS_BYTES_MAX.saturating_sub(status.encoded_len() + REPORT_TYPE.len() + ANY_HEADS_BYTES);
    for damage in &report.damages {
        told.damages.push(damage.clone());
        if told.encoded_len() > room {
            told.damages.pop();
            break;
        }
    }
    status.details.push(prost_types::Any { type_url: REPORT_TYPE.to_owned(), value: told.encode_to_vec() });
    Status::with_details(Code::DataLoss, status.message.clone(), status.encode_to_vec().into())
}

/// The report's type in a status's details.
const REPORT_TYPE: &str = "type.googleapis.com/larder.v1.VerifyRecoveryResponse";
/// What stands around the report beside its type.
const ANY_HEADS_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;
    use crate::proto::google;

    #[test]
    fn a_report_of_many_damages_names_as_many_as_a_status_has_room_for() {
        let damage = |n: usize| v1::Damage {
            place: format!("journal/{n:016x}.journal"),
            description: "a batch whose checksum is another".repeat(1 + n % 3),
            ..v1::Damage::default()
        };
        for count in [1, 3, 1_000] {
            let damages = (0..count).map(damage).collect();
            let report = v1::VerifyRecoveryResponse {
                method: "journal".to_owned(),
                damages,
                damages_total: 5_000,
                ..v1::VerifyRecoveryResponse::default()
            };
            let status = data_loss(&report);
            assert!(status.details().len() <= STATUS_BYTES_MAX, "{} bytes", status.details().len());
            assert_eq!(status.get_error_details().error_info().unwrap().reason, "RECOVERY_DAMAGED");
            let whole = google::rpc::Status::decode(status.details()).unwrap();
            let told = whole.details.iter().find(|any| any.type_url == REPORT_TYPE).unwrap();
            let told = v1::VerifyRecoveryResponse::decode(&*told.value).unwrap();
            assert_eq!(told.damages_total, 5_000);
            assert!(told.damages.len() == count || told.damages.len() > 5, "{} damages", told.damages.len());
        }
    }
}
