"""Certificates: our own application instance certificate, and whom we trust (OPC 10000-2, 8; OPC 10000-6, 6.2.2).

The folder, readable by its owner alone::

    pki/own/       own.der (hand it to the plant's servers), own.key; old.der while a renewed one is introduced
    pki/trusted/   certificates of peers or of certificate authorities that we trust, and *.crl
    pki/issuers/   authorities that complete a chain but are not trusted by themselves, and *.crl
    pki/rejected/  peers that were refused; ``foretag trust add`` moves one to trusted/
    pki/seen/      by thumbprint: where it was met first

One folder serves the connections to plant servers, the write-back and our own server. A file that is moved counts at
the next connection, and within a minute for one that stands. All functions are synchronous and touch a few small files:
on the event loop call them in a thread.
"""

from plugin.pki.caretaker import Caretaker
from plugin.pki.chain import application_uris, hosts, is_authority
from plugin.pki.files import hand_over, thumbprint, write_private
from plugin.pki.own import OwnCertificate, ensure_own_certificate, own_certificates, shown_certificate
from plugin.pki.revocation import Lists, read_lists
from plugin.pki.trustlist import Entry, Place, add_file, entries, find, move, rejected_folder, trust, trusted_folder
from plugin.pki.validation import Reason, Refusal, Use, refusal

__all__ = [
    "Caretaker", "Entry", "Lists", "OwnCertificate", "Place", "Reason", "Refusal", "Use", "add_file",
    "application_uris", "ensure_own_certificate", "entries", "find", "hand_over", "hosts", "is_authority", "move",
    "own_certificates", "read_lists", "refusal", "rejected_folder", "shown_certificate", "thumbprint", "trust",
    "trusted_folder", "write_private",
]  # fmt: skip
