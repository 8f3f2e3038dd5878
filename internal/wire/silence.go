package wire

import (
	"net"
	"time"
)

// Silence is how long the other end of a direct stream by TCP may acknowledge nothing, or take
// nothing of what is sent to it, before the connection ends: of a machine that has gone, or
// the way to it, there is no other sign. Left to itself a system goes on trying for a quarter
// of an hour.
const Silence = 2 * time.Minute

// GiveUpAfter has the system end a connection by TCP, no other, whose other end is silent for
// so long, whether anything is on its way there or not.
//
// A process that is stopped is not silent, as long as there is room for what it is sent: its
// system goes on acknowledging. That shows only by the time that an answer takes.
func GiveUpAfter(c Conn, silence time.Duration) {
	tcp, ok := socketOf(c).(*net.TCPConn)
	if !ok {
		return
	}
	const probes = 4
	// These fail on a connection that has ended, which shows when it is used.
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: silence / probes, Interval: silence / probes, Count: probes - 1})
	_ = setUserTimeout(tcp, silence)
}
