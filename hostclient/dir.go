package hostclient

import "filippo.io/age"

// WriteDir writes a sealed network to the folder dir, made if it is missing:
//
//	DIR/secret.age           the secret, encrypted to the recipients, mode 0600
//	DIR/role-N.safetensors   the sealed model of role N
//
// Every file is written anew and renamed, the secret last, so that a folder
// with a secret is whole.
func WriteDir(dir string, s *Secret, models []SealedModel, to ...age.Recipient) error {
	return errTODO
}

// ReadModels reads the sealed models of a folder that WriteDir wrote, in the
// order of their roles. That they belong to the secret is checked by Open.
func ReadModels(dir string) ([]SealedModel, error) { return nil, errTODO }

// ReadSecret reads and decrypts the secret of a folder that WriteDir wrote.
func ReadSecret(dir string, with ...age.Identity) (*Secret, error) { return nil, errTODO }
