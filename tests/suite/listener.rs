//! Listeners and connections: who is let in, who is hung up on, and what is said to those who cannot listen.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::plain_node::{PlainNode, check, get, soon};
use crate::support::raw::{PREFACE, SETTINGS};
use larder::clock::monotonic;
use larder::endpoint::Endpoint;
use larder::server::health::READY;
use larder::server::{Connections, ServerConfig, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic_health::pb::health_check_response::ServingStatus::Serving;

async fn dial(address: &Endpoint) -> TcpStream {
    TcpStream::connect(address.authority()).await.unwrap()
}

/// All that the peer still says, until it hangs up, politely or not.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset is a way to hang up.
    let _ = soon(stream.read_to_end(&mut said)).await;
    said
}

#[tokio::test]
async fn a_peer_that_does_not_begin_in_time_is_hung_up_on() {
    let timeout = Duration::from_millis(200);
    let node = PlainNode::start(|config| config.connection.first_byte_timeout = timeout).await;
    let began = monotonic();
    let mut silent = dial(node.data()).await;
    let mut half = dial(node.data()).await;
    half.write_all(&PREFACE[..10]).await.unwrap();
    // The preface is not all: SETTINGS belong to it.
    let mut preface_alone = dial(node.data()).await;
    preface_alone.write_all(PREFACE).await.unwrap();
    let mut http = dial(node.node.http_address()).await;
    http.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    // One that has begun may be idle.
    let mut idle = dial(node.data()).await;
    idle.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();

    for stream in [&mut silent, &mut half, &mut preface_alone, &mut http] {
        rest(stream).await;
        assert!(began.elapsed() >= timeout);
    }
    soon(async {
        while node.connections.open() > 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    let mut frame = [0; 9];
    idle.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "the node's SETTINGS");
}

#[tokio::test]
async fn a_peer_that_drips_gains_no_time() {
    let timeout = Duration::from_millis(200);
    let node = PlainNode::start(|config| config.connection.first_byte_timeout = timeout).await;
    let mut dripping = dial(node.data()).await;
    let began = monotonic();
    let mut dripped = 0;
    for byte in PREFACE {
        if dripping.write_all(&[*byte]).await.is_err() {
            break;
        }
        dripped += 1;
        let hung_up = tokio::time::timeout(Duration::from_millis(50), dripping.read_u8()).await;
        if hung_up.is_ok() {
            break;
        }
    }
    assert!(dripped < PREFACE.len() && began.elapsed() >= timeout, "{dripped} bytes");
}

#[tokio::test]
async fn http1_is_told_where_it_is_and_tls_is_hung_up_on() {
    let node = PlainNode::start(|_| {}).await;
    let mut browser = dial(node.data()).await;
    browser.write_all(b"GET / HTTP/1.1\r\nhost: larder\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(rest(&mut browser).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 505 ") && answer.contains("gRPC"), "{answer}");

    let mut tls = dial(node.data()).await;
    tls.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
    assert_eq!(rest(&mut tls).await, b"");
}

#[tokio::test]
async fn http_is_served_beside() {
    let node = PlainNode::start(|_| {}).await;
    let mut probe = dial(node.node.http_address()).await;
    probe.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(rest(&mut probe).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn a_connection_over_the_limit_is_closed_at_once_and_locks_out_no_probe() {
    let node = PlainNode::try_start(Connections::new(2), |_| {}).await.unwrap();
    let mut first = node.client().await;
    let mut second = node.client().await;
    first.get(get("k")).await.unwrap();
    second.get(get("k")).await.unwrap();
    let mut third = dial(node.data()).await;
    assert_eq!(rest(&mut third).await, b"");
    assert_eq!((node.connections.open(), node.connections.accepted(), node.connections.refused()), (2, 2, 1));
    assert_eq!(check(node.node.health_address(), READY).await.unwrap(), Serving);

    drop(second);
    soon(async {
        while node.connections.open() > 1 {
            tokio::task::yield_now().await
        }
    })
    .await;
    node.client().await.get(get("k")).await.unwrap();
    first.get(get("k")).await.unwrap();
}

#[tokio::test]
async fn calls_over_a_connections_limit_wait_for_their_turn() {
    let node = PlainNode::start(|config| config.connection.streams_max = 2).await;
    let mut client = node.client().await;
    // Before it has heard the limit, a client may send more, which are refused.
    client.get(get("k")).await.unwrap();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.get(get("wait")).await })
        })
        .collect();
    drop(client);
    node.cache.until_running(2).await;
    node.cache.release(3);
    for call in calls {
        soon(call).await.unwrap().unwrap();
    }
    assert_eq!(node.cache.most_running(), 2);
    node.life.drain(None);
    assert_eq!(soon(node.node.stopped()).await, Stop::Drained);
    assert_eq!(node.connections.open(), 0);
}

type Place = fn(&mut ServerConfig) -> &mut Endpoint;

#[tokio::test]
async fn a_port_in_use_is_named_with_its_flag_and_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let places: [(Place, &str); 4] = [
        (|config| &mut config.data[0], "--listen"),
        (|config| &mut config.admin, "--admin"),
        (|config| &mut config.health, "--health"),
        (|config| &mut config.http, "--http"),
    ];
    for (place, flag) in places {
        let start = PlainNode::try_start(Connections::default(), |config| {
            *place(config) = Endpoint::tcp("127.0.0.1", port);
        });
        let Err(error) = soon(start).await else { panic!("{flag} is not in use") };
        let text = error.to_string();
        for part in [flag, &format!("tcp://127.0.0.1:{port}"), "in use", "choose another port"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn other_addresses_that_cannot_be_had_are_named() {
    for (host, part) in [("192.0.2.1", "no such IP address"), ("no-such-host.invalid", "does not resolve")] {
        let start = PlainNode::try_start(Connections::default(), |config| {
            config.health = Endpoint::tcp(host, 0);
        });
        let Err(error) = soon(start).await else { panic!("{host} was listened on") };
        let text = error.to_string();
        assert!(text.contains(host) && text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn data_and_admin_stay_private_unless_told_otherwise() {
    let places: [(Place, bool); 4] = [
        (|config| &mut config.data[0], false),
        (|config| &mut config.admin, false),
        (|config| &mut config.health, true),
        (|config| &mut config.http, true),
    ];
    for (place, may_be_open) in places {
        for host in ["0.0.0.0", "::"] {
            for (standby, insecure) in [(false, false), (true, false), (false, true)] {
                let start = PlainNode::try_start(Connections::default(), |config| {
                    *place(config) = Endpoint::tcp(host, 0);
                    config.standby = standby;
                    config.insecure = insecure;
                });
                match soon(start).await {
                    Ok(_) => assert!(may_be_open || insecure, "{host}"),
                    Err(error) => {
                        let text = error.to_string();
                        assert!(!may_be_open && !insecure && text.contains("--insecure"), "{text}");
                    }
                }
            }
        }
    }
}

/// What a child of the next test runs: a node among few descriptors, until its standard input ends.
#[tokio::test]
async fn starved_node() {
    if std::env::var_os("LARDER_STARVED").is_none() {
        return;
    }
    let node = PlainNode::start(|_| {}).await;
    println!("\nnode {} {}", node.data().authority(), node.node.health_address().authority());
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
}

#[tokio::test]
async fn without_descriptors_a_node_hangs_up_and_recovers_and_does_not_spin() {
    let mut child = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 48 && exec \"$0\" --exact listener::starved_node --nocapture --test-threads=1",
        ])
        .arg(std::env::current_exe().unwrap())
        .env("LARDER_STARVED", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Held to the end, as the child has more to say than this.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line =
        lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("node ")).expect("the node starts");
    let mut words = line.split(' ').skip(1).map(|word| Endpoint::Tcp(word.parse().unwrap()));
    let (data, health) = (words.next().unwrap(), words.next().unwrap());

    let mut held = Vec::new();
    for _ in 0..60 {
        let mut stream = dial(&data).await;
        stream.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
        held.push(stream);
    }
    // Those that found no descriptor are hung up on; the others hear the node's SETTINGS.
    let mut served = Vec::new();
    let mut refused = 0;
    for mut stream in held {
        match soon(stream.read_exact(&mut [0; 9])).await {
            Ok(_) => served.push(stream),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0 && served.len() > 10, "{refused} refused, {} served", served.len());

    let before = processor_ticks(child.id());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = processor_ticks(child.id()) - before;
    assert!(spent < 30, "{spent} of 100 ticks spent on waiting");

    drop(served);
    let probe = async { while check_or_refused(&health).await.is_none() {} };
    soon(probe).await;
    assert!(check_or_refused(&data).await.is_some());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    drop(lines);
}

/// `None` where the node hung up.
async fn check_or_refused(address: &Endpoint) -> Option<()> {
    let url = format!("http://{}", address.authority());
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.ok()?;
    let request = tonic_health::pb::HealthCheckRequest { service: READY.to_owned() };
    tonic_health::pb::health_client::HealthClient::new(channel).check(request).await.ok().map(|_| ())
}

/// Processor time of a process, in ticks of a hundredth of a second.
fn processor_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
