#include "engine/model/pack_writer.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/xxh3.h"
#include "engine/model/panel_packer.h"
#include "engine/model/safetensors.h"
#include "engine/model/slice_reader.h"
#include "engine/model/source_window.h"
#include "kernels/types.h"

namespace bullpen {
namespace {

// Weights of a matrix that are read, packed and written as one piece.
constexpr int64_t kPieceWeights = int64_t{8} << 20;

// A part of a packed file: some rows of a matrix, or a vector, and the zeros
// behind it.
struct Piece {
  std::span<const RowSlice> parts;  // the matrix or the vector
  kernels::DType dtype = kernels::DType::kF32;
  int64_t first = 0;
  int64_t count = 0;  // rows; none: a vector in F32
  int64_t bytes = 0;
  int64_t zeros = 0;
  std::string matrix = {};          // whose importance counts
  std::optional<size_t> note = {};  // of the report's tensors
  bool ends_blob = false;           // that has a checksum
};

// "BF16+Q8_0" of parts in these types.
std::string SourceTypes(std::span<const RowSlice> parts) {
  std::set<std::string> types;
  for (const RowSlice& part : parts) types.insert(part.tensor.info.dtype);
  return absl::StrJoin(types, "+");
}

// The pieces of one file in order, and what the report says of its matrices.
class PieceList {
 public:
  explicit PieceList(PackReport& report) : report_(report) {}

  void AddResident(const ResidentPlan& tensor);
  void AddLayer(const LayerPlan& layer, int l);
  // From here on another checksum counts.
  void EndBlob() { pieces_.back().ends_blob = true; }
  const std::vector<Piece>& pieces() const { return pieces_; }

 private:
  // `rows` rows of `parts`, as `matrix` says but for which.
  void AddMatrix(Piece matrix, int64_t rows);
  void AddVector(std::span<const RowSlice> parts);
  void AddExpert(const LayerPlan& layer, int l, int e);
  // Zeros until the file has `bytes` since `begin`.
  void PadTo(int64_t begin, int64_t bytes);
  size_t Note(PackedTensor note) {
    report_.tensors.push_back(std::move(note));
    return report_.tensors.size() - 1;
  }

  PackReport& report_;
  std::vector<Piece> pieces_;
  int64_t end_ = 0;
  size_t gate_up_ = 0;  // notes of the layer at hand
  size_t down_ = 0;
};

void PieceList::AddMatrix(Piece matrix, int64_t rows) {
  const RowSlice& front = matrix.parts.front();
  const int64_t band_weights = int64_t{kernels::kBandRows} * front.cols;
  const int64_t step =
      std::max<int64_t>(kPieceWeights / band_weights, 1) * kernels::kBandRows;
  for (int64_t first = 0; first < rows; first += step) {
    Piece& piece = pieces_.emplace_back(matrix);
    piece.first = first;
    piece.count = std::min(step, rows - first);
    piece.bytes = kernels::PanelBytes(matrix.dtype, piece.count, front.cols);
    end_ += piece.bytes;
  }
}

void PieceList::AddVector(std::span<const RowSlice> parts) {
  Piece& piece = pieces_.emplace_back();
  piece.parts = parts;
  for (const RowSlice& part : parts) {
    piece.bytes += part.rows * part.cols * int64_t{sizeof(float)};
  }
  end_ += piece.bytes;
}

void PieceList::PadTo(int64_t begin, int64_t bytes) {
  const int64_t zeros = begin + bytes - end_;
  CHECK(zeros >= 0) << -zeros << " bytes too many";
  pieces_.back().zeros += zeros;
  end_ += zeros;
}

void PieceList::AddResident(const ResidentPlan& tensor) {
  const ResidentShape& shape = tensor.shape;
  const int64_t begin = end_;
  if (!shape.panels()) {
    // Its parts stand side by side: each is a row of its own width.
    AddVector(tensor.parts);
  } else {
    const Piece matrix = {
        .parts = tensor.parts,
        .dtype = tensor.dtype,
        .matrix = shape.name,
        .note = Note({.name = shape.name,
                      .from = SourceTypes(tensor.parts),
                      .to = std::string(DTypeName(tensor.dtype)),
                      .reason = tensor.reason})};
    if (shape.heads == 1) AddMatrix(matrix, shape.rows);
    for (size_t h = 0; shape.heads > 1 && h < tensor.parts.size(); ++h) {
      Piece head = matrix;
      head.parts = matrix.parts.subspan(h, 1);
      AddMatrix(head, shape.rows);
    }
  }
  PadTo(begin, shape.bytes(tensor.dtype));
}

void PieceList::AddExpert(const LayerPlan& layer, int l, int e) {
  const ExpertPlan& expert = layer.experts[e];
  const kernels::ExpertShape& shape = layer.shape;
  const int64_t begin = end_;
  const Piece gate = {.parts = {&expert.gate, 1},
                      .dtype = shape.dtype,
                      .matrix = Importance::ExpertMatrix(l, e, "experts.gate"),
                      .note = gate_up_};
  AddMatrix(gate, shape.inner);
  PadTo(begin, shape.gate_bytes());
  Piece up = gate;
  up.parts = {&expert.up, 1};
  AddMatrix(up, shape.inner);
  PadTo(begin, shape.down_offset());
  AddMatrix({.parts = {&expert.down, 1},
             .dtype = shape.down_dtype(),
             .matrix = Importance::ExpertMatrix(l, e, "experts.down"),
             .note = down_},
            shape.dim);
  const int64_t bias_offsets[] = {shape.gate_bias_offset(),
                                  shape.up_bias_offset(),
                                  shape.down_bias_offset()};
  for (size_t i = 0; i < expert.biases.size(); ++i) {
    PadTo(begin, bias_offsets[i]);
    AddVector({&expert.biases[i], 1});
  }
  PadTo(begin, layer.blob_bytes);
  EndBlob();
}

void PieceList::AddLayer(const LayerPlan& layer, int l) {
  std::vector<RowSlice> gate_up, down;
  for (const ExpertPlan& expert : layer.experts) {
    gate_up.insert(gate_up.end(), {expert.gate, expert.up});
    down.push_back(expert.down);
  }
  const std::string prefix = absl::StrCat("layers.", l, ".experts.");
  gate_up_ = Note({.name = prefix + "gate_up",
                   .from = SourceTypes(gate_up),
                   .to = std::string(DTypeName(layer.shape.dtype)),
                   .reason = layer.gate_reason});
  down_ = Note({.name = prefix + "down",
                .from = SourceTypes(down),
                .to = std::string(DTypeName(layer.shape.down_dtype())),
                .reason = layer.down_reason});
  for (size_t e = 0; e < layer.experts.size(); ++e) {
    AddExpert(layer, l, static_cast<int>(e));
  }
}

// Reads, packs and writes pieces: while one is packed, the next ones are read
// and the last ones written.
class WeightsWriter {
 public:
  WeightsWriter(const Checkpoint& checkpoint, const PackPlan& plan,
                const WriteWatch& watch)
      : source_(checkpoint),
        packer_(checkpoint),
        vectors_(checkpoint),
        watch_(watch),
        total_bytes_(plan.total_bytes) {}

  // The checksums of its blobs.
  absl::StatusOr<std::vector<uint64_t>> Write(
      const std::filesystem::path& path,
      const std::vector<SafetensorsWriter::Tensor>& header,
      const std::vector<Piece>& pieces);

 private:
  PanelRows RowsOf(const Piece& piece) const {
    return {.parts = piece.parts,
            .dtype = piece.dtype,
            .first = piece.first,
            .count = piece.count,
            .importance = importance_};
  }
  // What it is packed from.
  std::vector<SourceRange> RangesOf(const Piece& piece) const;
  absl::Status Pack(const Piece& piece, std::byte* out);
  absl::Status PackVector(const Piece& piece, std::byte* out);

  ReadAhead source_;
  PanelPacker packer_;
  SliceReader vectors_;
  const WriteWatch& watch_;
  const int64_t total_bytes_;
  int64_t done_ = 0;
  std::string matrix_;  // that importance_ belongs to
  std::vector<float> importance_;
};

std::vector<SourceRange> WeightsWriter::RangesOf(const Piece& piece) const {
  std::vector<SourceRange> ranges;
  if (piece.count > 0) {
    PanelPacker::AddRanges(RowsOf(piece), ranges);
  } else {
    for (const RowSlice& part : piece.parts) {
      SliceReader::AddRanges(part, {0, part.rows}, ranges);
    }
  }
  return ranges;
}

absl::Status WeightsWriter::PackVector(const Piece& piece, std::byte* out) {
  for (const RowSlice& part : piece.parts) {
    ASSIGN_OR_RETURN(const std::span<const float> values,
                     vectors_.ReadFloats(part, {0, part.rows}));
    std::memcpy(out, values.data(), values.size_bytes());
    out += values.size_bytes();
  }
  return absl::OkStatus();
}

absl::Status WeightsWriter::Pack(const Piece& piece, std::byte* out) {
  if (piece.count == 0) return PackVector(piece, out);
  if (watch_.importance != nullptr && matrix_ != piece.matrix) {
    matrix_ = piece.matrix;
    importance_ = watch_.importance->Of(matrix_);
  }
  return packer_.Pack(RowsOf(piece), out, watch_.report.tensors[*piece.note]);
}

absl::StatusOr<std::vector<uint64_t>> WeightsWriter::Write(
    const std::filesystem::path& path,
    const std::vector<SafetensorsWriter::Tensor>& header,
    const std::vector<Piece>& pieces) {
  ASSIGN_OR_RETURN(SafetensorsWriter file,
                   SafetensorsWriter::Create(path, header, kBlobAlignment));
  std::vector<uint64_t> checksums;
  XXH3_state_t hash;
  XXH3_64bits_reset(&hash);
  size_t begun = 0;
  for (const Piece& piece : pieces) {
    for (; begun < pieces.size() && source_.HasRoom(); ++begun) {
      RETURN_IF_ERROR(source_.Begin(RangesOf(pieces[begun])));
    }
    ASSIGN_OR_RETURN(const SourceWindow* const window, source_.Next());
    packer_.Use(window);
    vectors_.Use(window);
    ASSIGN_OR_RETURN(const std::span<std::byte> room,
                     file.Room(piece.bytes + piece.zeros));
    RETURN_IF_ERROR(Pack(piece, room.data()));
    std::memset(room.data() + piece.bytes, 0, static_cast<size_t>(piece.zeros));
    XXH3_64bits_update(&hash, room.data(), room.size());
    RETURN_IF_ERROR(file.Commit());
    if (piece.ends_blob) {
      checksums.push_back(XXH3_64bits_digest(&hash));
      XXH3_64bits_reset(&hash);
    }
    done_ += std::ssize(room);
    if (watch_.progress) watch_.progress(done_, total_bytes_);
  }
  RETURN_IF_ERROR(file.Finish());
  return checksums;
}

absl::Status WriteResident(const PackPlan& plan, const WriteWatch& watch,
                           const std::filesystem::path& path,
                           WeightsWriter& writer, Manifest& manifest) {
  std::vector<SafetensorsWriter::Tensor> header;
  PieceList list(watch.report);
  for (const ResidentPlan& tensor : plan.resident) {
    header.push_back(
        {tensor.shape.name, "U8", {tensor.shape.bytes(tensor.dtype)}});
    manifest.resident[tensor.shape.name] = tensor.dtype;
    list.AddResident(tensor);
  }
  list.EndBlob();
  ASSIGN_OR_RETURN(const std::vector<uint64_t> checksums,
                   writer.Write(path, header, list.pieces()));
  manifest.resident_checksum = checksums.front();
  return absl::OkStatus();
}

absl::Status WriteExperts(const PackPlan& plan, const WriteWatch& watch,
                          const std::filesystem::path& path,
                          WeightsWriter& writer, Manifest& manifest) {
  std::vector<SafetensorsWriter::Tensor> header;
  PieceList list(watch.report);
  for (size_t l = 0; l < plan.layers.size(); ++l) {
    const LayerPlan& layer = plan.layers[l];
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      header.push_back({ExpertName(static_cast<int>(l), static_cast<int>(e)),
                        "U8",
                        {layer.blob_bytes}});
    }
    list.AddLayer(layer, static_cast<int>(l));
  }
  ASSIGN_OR_RETURN(const std::vector<uint64_t> checksums,
                   writer.Write(path, header, list.pieces()));
  auto next = checksums.begin();
  for (const LayerPlan& layer : plan.layers) {
    Manifest::Layer& noted = manifest.layers.emplace_back();
    noted.dtype = layer.shape.dtype;
    noted.down = layer.shape.down_dtype();
    noted.checksums.assign(next, next + std::ssize(layer.experts));
    next += std::ssize(layer.experts);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Manifest> WriteWeights(const Checkpoint& checkpoint,
                                      const PackPlan& plan,
                                      const std::filesystem::path& dir,
                                      const WriteWatch& watch) {
  Manifest manifest;
  WeightsWriter writer(checkpoint, plan, watch);
  RETURN_IF_ERROR(
      WriteResident(plan, watch, dir / kResidentFile, writer, manifest));
  RETURN_IF_ERROR(
      WriteExperts(plan, watch, dir / kExpertsFile, writer, manifest));
  return manifest;
}

}  // namespace bullpen
