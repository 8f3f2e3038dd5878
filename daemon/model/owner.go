package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
)

// Owner is a caller as the transport has identified it, and the name of the caller's folder.
type Owner string

// User returns the owner for processes of a user of this machine.
func User(uid uint32) Owner { return Owner(fmt.Sprintf("uid-%d", uid)) }

// Certified returns the owner for the caller that a certificate names. Whatever the name,
// the owner is a valid file name.
func Certified(name string) Owner {
	sum := sha256.Sum256([]byte(name))
	return Owner("tls-" + hex.EncodeToString(sum[:]))
}

var owners = regexp.MustCompile(`^(uid-[0-9]{1,10}|tls-[0-9a-f]{64})$`)

// valid reports whether a folder's name is an owner.
func (o Owner) valid() bool { return owners.MatchString(string(o)) }
