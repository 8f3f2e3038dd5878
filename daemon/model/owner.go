package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
)

// Owner is a caller, by whom the transport has found it to be. It is the name of
// the caller's folder.
type Owner string

// User is the caller of a process of a user of this machine.
func User(uid uint32) Owner { return Owner(fmt.Sprintf("uid-%d", uid)) }

// Certified is the caller whom a certificate names. Whatever the name, the owner is
// a name of a file.
func Certified(name string) Owner {
	sum := sha256.Sum256([]byte(name))
	return Owner("tls-" + hex.EncodeToString(sum[:]))
}

var owners = regexp.MustCompile(`^(uid-[0-9]{1,10}|tls-[0-9a-f]{64})$`)

// valid reports whether a folder's name is that of an owner.
func (o Owner) valid() bool { return owners.MatchString(string(o)) }
