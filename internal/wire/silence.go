package wire

import (
	"net"
	"time"
)

// Silence is how long the peer of a direct stream over TCP may acknowledge nothing, or accept
// nothing that is sent to it, before the connection ends. If the peer's machine or the network
// fails, there is no other sign. By default the system keeps trying for a quarter of an hour.
const Silence = 2 * time.Minute

// GiveUpAfter makes the system end a TCP connection whose peer has been silent for the given
// time, whether or not data is in flight to it. It does nothing for other connections.
//
// A stopped process is not silent as long as its receive buffer has room, because its system
// goes on acknowledging. Only the time that an answer takes reveals it.
func GiveUpAfter(c Conn, silence time.Duration) {
	tcp, ok := socketOf(c).(*net.TCPConn)
	if !ok {
		return
	}
	const probes = 4
	// These fail only if the connection has ended. Its next use reports that.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: silence / probes, Interval: silence / probes, Count: probes - 1})
	_ = setUserTimeout(tcp, silence)
}
