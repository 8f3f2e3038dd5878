package paper

import (
	"fmt"
	"math"
)

// seconds are a row of the paper's table 1, for 50,000 images.
type seconds struct{ local, host, cloud, transfer, total float64 }

// cut returns by how much less the total is than local, as a fraction.
func (s seconds) cut() float64 { return 1 - s.total/s.local }

// paperSeconds are the rows of the paper's table 1 by network, with c = 0 and c = 100.
var paperSeconds = map[string][2]seconds{
	"mlp":       {{25.74, 18.91, 25.15, 5.82, 49.88}, {25.74, 19.35, 24.72, 5.90, 49.97}},
	"mnist-cnn": {{3968.0, 628.3, 851.8, 12.56, 1492.66}, {3968.0, 714.6, 842.7, 11.65, 1568.95}},
	"cifar-cnn": {{6437.3, 1005.0, 1303.7, 45.12, 2353.82}, {6437.3, 1140.8, 1285.7, 49.51, 2476.01}},
}

// Figures of the paper's table 2.
const (
	cryptoNetsPerHour = 58_982
	paperPerHour      = 120_590
	cryptoNetsKB      = 93.046
	paperKB           = 28.12
	bytesOfKB         = 1024
)

// published are the rows of the paper's table 2, of MNIST.
var published = []Row{
	{
		Table: 2, Network: CryptoNets, System: "CryptoNets, published", PerHour: of(float64(cryptoNetsPerHour)), Accuracy: of(0.9895),
		BytesUp: of(91.875 * bytesOfKB), BytesDown: of(1.17 * bytesOfKB),
		Note: "ICML 2016, MNIST, 4,096 images a batch",
	},
	{
		Table: 2, Network: CryptoNets, System: "the paper, published", Scheme: "permute", Checks: "0", PerHour: of(float64(paperPerHour)), Accuracy: of(0.9915),
		BytesUp: of(18.75 * bytesOfKB), BytesDown: of(9.37 * bytesOfKB),
		Note: "ACML 2018, MNIST, nothing checked",
	},
}

// judged returns r with what it says of the paper.
func (r Row) judged() Row {
	var confirms bool
	if r.Table == 1 {
		confirms, r.Verdict = r.judgeTime()
	} else {
		confirms, r.Verdict = r.judgeThroughput()
	}
	r.Confirms = &confirms
	return r
}

// less says a cut in words.
func less(cut float64) string {
	if cut < 0 {
		return fmt.Sprintf("%.2f %% more", -100*cut)
	}
	return fmt.Sprintf("%.2f %% less", 100*cut)
}

// judgeTime compares a total of table 1 with the paper's of the same network: the one
// without checks where there are none, else the one with c = 100. The paper has no work
// offline: pads count here. Where it found outsourcing slower, so does what confirms it. What a difference comes from is the part
// whose share of local time is furthest from the paper's, on the side of the difference.
func (r Row) judgeTime() (confirms bool, verdict string) {
	claims, known := paperSeconds[r.Network]
	if !known {
		return false, "The paper has no such network."
	}
	c, claim := 100, claims[1]
	if r.Checks == "0" {
		c, claim = 0, claims[0]
	}
	offline, counted := *r.HostOfflineMS, ""
	if offline > 0 {
		counted = ", pads counted"
	}
	here := seconds{*r.LocalMS, *r.HostOnlineMS + offline, *r.CloudMS, *r.TransferMS, *r.TotalMS + offline}
	figure := fmt.Sprintf("%s time than local (its permute, c = %d)", less(claim.cut()), c)
	if confirms = here.cut() >= claim.cut(); claim.cut() < 0 {
		confirms = here.cut() < 0
	}
	if confirms {
		return true, fmt.Sprintf("Confirms the paper's %s: here %s%s.", figure, less(here.cut()), counted)
	}
	slower := 1.0 // or -1: where the paper's is
	if here.cut() > claim.cut() {
		slower = -1
	}
	part, share, claimed, most := "", 0.0, 0.0, math.Inf(-1)
	for _, p := range []struct {
		name        string
		here, there float64
	}{{"host's work", here.host, claim.host}, {"cloud's work", here.cloud, claim.cloud}, {"transfer", here.transfer, claim.transfer}} {
		a, b := p.here/here.local, p.there/claim.local
		if d := slower * (a - b); d > most {
			part, share, claimed, most = p.name, a, b, d
		}
	}
	return false, fmt.Sprintf("Does not confirm the paper's %s: here %s%s, as the %s takes %.1f %% of local time, where the paper's took %.1f %%.",
		figure, less(here.cut()), counted, part, 100*share, 100*claimed)
}

// judgeThroughput compares a row of table 2 with what the paper says it gains over
// CryptoNets' published figures, in predictions an hour, pads counted, and in bytes. Speed
// is of machines of different years, and says so.
func (r Row) judgeThroughput() (confirms bool, verdict string) {
	each, kb, counted := *r.TotalMS+*r.HostOfflineMS, (*r.BytesUp+*r.BytesDown)/bytesOfKB, ""
	if *r.HostOfflineMS > 0 {
		counted = ", pads counted"
	}
	perHour := 3.6e6 / each
	const claim = "+104.45 % predictions an hour and -69.78 % bytes against CryptoNets"
	here := fmt.Sprintf("%.4g times the predictions an hour that CryptoNets had on a machine of 2016%s, and %s bytes", perHour/cryptoNetsPerHour, counted, less(1-kb/cryptoNetsKB))
	switch fast, small := perHour >= paperPerHour, kb <= paperKB; {
	case fast && small:
		return true, fmt.Sprintf("Confirms the paper's %s: here %s, fully checked.", claim, here)
	case small:
		return false, fmt.Sprintf("Does not confirm the paper's %s: here %s, as an image takes %.4g ms.", claim, here, each)
	default:
		return false, fmt.Sprintf("Does not confirm the paper's %s: here %s, as an image takes %.4g KB.", claim, here, kb)
	}
}
