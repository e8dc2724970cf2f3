//! A connection that is parked, over a pipe.

use std::future::poll_fn;

use http::{HeaderMap, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::*;
use crate::clock::UndoneCommands;
use crate::server::connections::Connections;
use crate::server::stack::{LayUnread, unread_refusal};

impl Unread for DuplexStream {
    fn unread(&self) -> usize {
        0
    }
}

/// A request with indexed fields alone.
fn request(stream: u8) -> Vec<u8> {
    vec![0, 0, 1, 1, 5, 0, 0, 0, stream, 0x83]
}

/// A connection, the other end, and those of its node.
fn connection() -> (FollowedIo<DuplexStream>, DuplexStream, Connections) {
    let (near, far) = duplex(1 << 20);
    let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
    let connections = Connections::new(1);
    let reading = Reading::new(&connections, &peer);
    let mut followed = FollowedIo::new(near, reading);
    // Without the preface.
    followed.received = FrameScanner::default();
    (followed, far, connections)
}

/// What a turn of the connection reads first; `None`: nothing for now.
async fn turn(connection: &mut FollowedIo<DuplexStream>) -> Option<Vec<u8>> {
    connection.reading.begin_turn();
    let first = read(connection).await;
    if connection.gives_way { after_others(connection).await } else { first }
}

/// What the connection reads first when others have had their turn.
async fn after_others(connection: &mut FollowedIo<DuplexStream>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1_000];
    poll_fn(|context| {
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *connection).poll_read(context, &mut buffer) {
            Poll::Pending if connection.gives_way => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(read) => Poll::Ready(Some(read.map(|()| buffer.filled().to_vec()).unwrap())),
        }
    })
    .await
}

/// What the connection reads next.
async fn read(connection: &mut FollowedIo<DuplexStream>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1_000];
    let read = poll_fn(|context| {
        let mut buffer = ReadBuf::new(&mut bytes);
        let polled = Pin::new(&mut *connection).poll_read(context, &mut buffer);
        Poll::Ready(polled.map_ok(|()| buffer.filled().len()))
    });
    match read.await {
        Poll::Ready(read) => Some(bytes[..read.unwrap()].to_vec()),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn what_has_piled_up_while_a_connection_was_parked_is_refused_and_what_comes_then_is_read() {
    let (mut connection, mut far, connections) = connection();
    let load = connections.load();
    far.write_all(&request(1)).await.unwrap();
    assert_eq!(turn(&mut connection).await, Some(request(1)));
    assert_eq!(turn(&mut connection).await, None);
    load.limit(0);
    far.write_all(&[request(3), request(5)].concat()).await.unwrap();
    assert_eq!(turn(&mut connection).await, None, "it is parked");
    // Longer than its calls would wait.
    connection.arrivals.set_age(Duration::from_secs(2));
    load.limit(1);
    assert_eq!(turn(&mut connection).await, None);
    assert_eq!(connections.requests_refused(), 2);
    let mut answer = [0; 9];
    far.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[3], answer[4], answer[8]), (1, 5, 3), "HEADERS with END_STREAM of stream 3");
    far.write_all(&request(7)).await.unwrap();
    assert_eq!(turn(&mut connection).await, Some(request(7)));
    assert_eq!(turn(&mut connection).await, None);
    assert!(connection.shedding.is_none(), "nothing is left to look at");
}

#[tokio::test]
async fn what_was_parked_for_less_than_its_time_is_read() {
    let (mut connection, mut far, connections) = connection();
    let load = connections.load();
    load.limit(0);
    far.write_all(&request(1)).await.unwrap();
    assert_eq!(turn(&mut connection).await, None);
    load.limit(1);
    assert_eq!(turn(&mut connection).await, Some(request(1)));
    assert_eq!(connections.requests_refused(), 0);
}

/// Whether the stack is to refuse a request that HTTP/2 hands out now.
fn is_refused(connection: &FollowedIo<DuplexStream>) -> bool {
    let mut request = http::Request::new(());
    connection.reading.stamp(&mut request);
    request.extensions().get::<LayUnread>().is_some_and(|unread| unread.too_long.is_some())
}

#[tokio::test]
async fn a_connection_that_uses_more_than_its_share_lets_others_have_their_turn_before() {
    let (mut connection, mut far, connections) = connection();
    let load = connections.load();
    load.limit(1);
    far.write_all(&request(1)).await.unwrap();
    connection.reading.begin_turn();
    assert_eq!(read(&mut connection).await, None);
    assert!(connection.gives_way);
    assert_eq!(after_others(&mut connection).await, Some(request(1)));
    assert!(!connection.gives_way);
}

#[tokio::test]
async fn a_backlog_that_is_longer_than_a_turn_reads_is_not_taken_for_the_end() {
    let (mut connection, mut far, connections) = connection();
    let load = connections.load();
    load.limit(0);
    let requests = COMMANDS_BYTES / request(1).len() + 1;
    for number in 0..requests {
        let mut request = request(1);
        request[5..9].copy_from_slice(&(2 * number as u32 + 1).to_be_bytes());
        far.write_all(&request).await.unwrap();
    }
    assert_eq!(turn(&mut connection).await, None, "it is parked");
    connection.arrivals.set_age(Duration::from_secs(2));
    let mut undone = UndoneCommands::none(connection.reading.unread_time());
    undone.set(true);
    load.limit(1);
    // Two turns of this many bytes, or more where one is cut short since it took long.
    while connections.requests_refused() < requests as u64 {
        assert_eq!(turn(&mut connection).await, None, "nothing is passed on, and it has not ended");
    }
    assert_eq!(connections.requests_refused(), requests as u64);
    far.write_all(&[0, 0, 1, 1, 5, 0, 1, 0, 1, 0x83]).await.unwrap();
    assert!(turn(&mut connection).await.is_some(), "what comes then is read");
}

#[tokio::test]
async fn what_http2_has_to_see_is_refused_by_the_stack_and_nothing_else_is() {
    let (mut connection, mut far, connections) = connection();
    let load = connections.load();
    load.limit(0);
    // A field that is put into the table.
    let old = vec![0, 0, 6, 1, 5, 0, 0, 0, 1, 0x83, 0x40, 1, b'a', 1, b'b'];
    far.write_all(&old).await.unwrap();
    assert_eq!(turn(&mut connection).await, None);
    connection.arrivals.set_age(Duration::from_secs(2));
    load.limit(1);
    // HTTP/2 hands out at the end of a turn what it was given in it.
    assert_eq!((turn(&mut connection).await, is_refused(&connection)), (None, false));
    assert_eq!(turn(&mut connection).await, Some(old));
    assert_eq!((read(&mut connection).await, is_refused(&connection)), (None, true));
    far.write_all(&request(3)).await.unwrap();
    assert_eq!((turn(&mut connection).await, is_refused(&connection)), (None, true));
    assert_eq!(turn(&mut connection).await, Some(request(3)));
    assert_eq!((read(&mut connection).await, is_refused(&connection)), (None, false));
    assert_eq!(connections.requests_refused(), 1);
    assert!(connection.shedding.is_none(), "nothing is left to look at");
}

#[tokio::test]
async fn a_peer_that_sends_no_more_is_answered_and_read_to_its_end() {
    let (mut connection, far, connections) = connection();
    let load = connections.load();
    let (mut reading, mut writing) = tokio::io::split(far);
    load.limit(0);
    let old = vec![0, 0, 6, 1, 5, 0, 0, 0, 3, 0x83, 0x40, 1, b'a', 1, b'b'];
    writing.write_all(&[request(1), old.clone()].concat()).await.unwrap();
    assert_eq!(turn(&mut connection).await, None);
    writing.shutdown().await.unwrap();
    connection.arrivals.set_age(Duration::from_secs(2));
    load.limit(1);
    assert_eq!(turn(&mut connection).await, None);
    assert_eq!(turn(&mut connection).await, Some(old));
    assert_eq!(read(&mut connection).await, Some(Vec::new()), "the end");
    let _ = connection.send_answers(&mut Context::from_waker(std::task::Waker::noop()));
    let mut answer = [0; 9];
    reading.read_exact(&mut answer).await.unwrap();
    assert_eq!((answer[3], answer[4], answer[8]), (1, 5, 1), "HEADERS with END_STREAM of stream 1");
    assert_eq!(connections.requests_refused(), 2);
}

/// The fields of a block that has no more than a status and literals.
fn fields(block: &[u8]) -> HeaderMap {
    let (mut fields, mut at) = (HeaderMap::new(), 1);
    assert_eq!(block[0], 0x88);
    let string = |at: &mut usize| {
        let mut length = usize::from(block[*at]);
        *at += 1;
        let mut shift = 0;
        while length >= 127 && shift < 21 {
            let byte = block[*at];
            length += usize::from(byte & 0x7f) << shift;
            (*at, shift) = (*at + 1, shift + 7);
            if byte < 0x80 {
                break;
            }
        }
        *at += length;
        block[*at - length..*at].to_vec()
    };
    while at < block.len() {
        assert_eq!(block[at], 0, "a literal that is not put into the table");
        at += 1;
        let (name, value) = (string(&mut at), string(&mut at));
        let name = http::HeaderName::from_bytes(&name).unwrap();
        fields.insert(name, http::HeaderValue::from_bytes(&value).unwrap());
    }
    fields
}

#[test]
fn a_refusal_says_what_the_node_says_elsewhere() {
    let refusal = unread_refusal(Duration::from_millis(75));
    let read = fields(&field_block::of_response(&refusal));
    assert_eq!(&read, refusal.headers());
    let status = Status::from_header_map(&read).unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("75 ms"), "{status}");
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "OVERLOADED");
    let long = Response::builder().header("a", "b".repeat(5_000)).body(()).unwrap();
    assert_eq!(&fields(&field_block::of_response(&long)), long.headers());
}
