//! Somebody watches a video that a guest streams, and notices nothing while it moves.
//!
//! `ARCUS_LAB_ROUNDS` says how often it moves (20 for the full test).

use crate::MOVE_MAX;
use crate::cloud::{Lab, setting};
use crate::wire::Wire;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// 1080p as it is streamed. An emulated guest on two shared cores sends several times as much when nothing disturbs it.
const BITS_PER_S: u32 = 6_000_000;
/// How long the server in the guest may take to be there, and the player to have its first second.
const BEGIN_MAX: Duration = Duration::from_secs(60);

/// An HTTP server with an endless stream, whose every byte follows from its place.
const STREAMER: &str = "mkdir -p /www/cgi-bin; seq 1000000 1131071 > /www/piece; cat > /www/cgi-bin/video <<\"E\"\n\
    #!/bin/sh\nprintf \"Content-Type: video/mp2t\\r\\n\\r\\n\"\nn=0\nwhile :; do n=$((n+1)); printf \"%08d\\n\" $n || exit; \
    cat /www/piece || exit; done\nE\nchmod 755 /www/cgi-bin/video; httpd -p 8080 -h /www";
/// How often a retransmission timer of the guest's has fired.
const TIMEOUTS: &str = "awk \"/^TcpExt/ { if (!n) { split(\\$0, name); n = 1 } else for (i in name) \
    if (name[i] == \\\"TCPTimeouts\\\") print \\$i }\" /proc/net/netstat";

#[tokio::test]
async fn a_video_plays_on_while_the_guest_that_streams_it_moves() -> Result<()> {
    let rounds = setting("ARCUS_LAB_ROUNDS", 4)?;
    let lab = Lab::up("video", 3).await?;
    let (server, client) = lab.servers("n1", "n3").await?;
    let mut wire = Wire::connect(&lab, &client, &server)?;
    wire.guest(&lab, &server, STREAMER)?;
    wire.end()?;
    let mut player = Wire::play(&lab, &client, &server, "/cgi-bin/video", BITS_PER_S)?;
    let began = Instant::now();
    while player.seen()?.bytes < u64::from(BITS_PER_S / 8) {
        ensure!(began.elapsed() < BEGIN_MAX, "nothing is played: {:?}", player.seen()?);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = Instant::now();
    let mut lowest = Vec::new();
    for round in 0..rounds {
        let (from, to) = if round % 2 == 0 { ("n1", "n2") } else { ("n2", "n1") };
        let asked = Instant::now();
        server.migrate(Some(to)).await?;
        server.wait_for_node(to, MOVE_MAX).await?;
        let took = asked.elapsed();
        lab.wait_for_one_process(&server, to, MOVE_MAX).await?;
        let seen = player.seen()?;
        eprintln!("round {round}, {from} to {to} in {took:?}: {seen:?}");
        ensure!(seen.rebuffers == 0, "the play stood still in round {round}: {seen:?}");
        lowest.push(seen.lowest_ms);
    }
    let seen = player.seen()?;
    let expected = (began.elapsed().as_secs_f64() - 1.0) * f64::from(BITS_PER_S) / 8.0;
    #[expect(clippy::cast_precision_loss, reason = "a stream of some minutes")]
    let enough = seen.bytes as f64 > expected;
    ensure!(seen.resets == 0 && enough, "connections were reset, or little was played: {seen:?}");
    let timeouts = player.guest(&lab, &server, TIMEOUTS)?;
    lowest.sort_unstable();
    eprintln!(
        "{rounds} moves, {} bytes at {BITS_PER_S} bit/s: no rebuffer, no reset; of 1 s at least {lowest:?} ms were left, the \
         guest's retransmission timers fired {} times",
        seen.bytes,
        timeouts.trim()
    );
    player.end()?;
    lab.down()
}
