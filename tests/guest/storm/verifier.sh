# SPDX-License-Identifier: GPL-2.0-only
# What each BPF program costs to verify on this kernel, against the record.
. "${0%/*}/lib.sh"

record=${0%/*}/../../verifier/record.json
said=$("$X" verifier --compare "$record" 2>&1)
code=$?
echo "$said"
verdict record "$(echo "$said" | tail -1)" [ $code -eq 0 ]
# it notices: the same programs against a record that says half
sed -E 's/("verified_insns": )([0-9]+)[0-9],/\1\2,/' "$record" >"$W/doctored.json"
said=$("$X" verifier --compare "$W/doctored.json" 2>&1)
code=$?
verdict regression-noticed "$(echo "$said" | grep -m1 'instructions in the record')" [ $code -eq 1 ]
clean_dmesg
echo "done"
