// Package adversary is a cloud that cheats: a proxy in front of an honest
// daemon that changes answers on their way back. Tests and the demo use it to
// show that each kind of lie is caught. It never runs in production.
package adversary
